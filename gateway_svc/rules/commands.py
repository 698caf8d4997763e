"""`gateway-svc rules`: checks a file of rules, runs cases against it, tries it on what is on the record."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import grpc

from recording.channel.watched import WrongFile, read_file
from service_kit.client import open_channel
from service_kit.printable import printable
from service_kit.terminal.command import Argument, Exit, Option
from service_kit.terminal.failures import Failed
from service_kit.terminal.printing import Json, Printer, Table, counted, print_fields
from service_kit.times import parse_time
from service_kit.unanswered import LEDGER, told

if TYPE_CHECKING:  # who asks for help need not load the library of conditions
    from gateway_svc.rules.recorded import Trial
    from service_kit.rules.policy import Policy

out = Printer()

EXIT_FAILED = 1
EXIT_WRONG_FILE = 2
SESSIONS_A_PAGE = 1000

RulesFile = Annotated[Path, Argument(help="The file of rules.")]
CasesFile = Annotated[Path, Argument(help="The file of cases.")]


def check(file: RulesFile, as_json: Json = False) -> None:
    """Check a file of rules, and print its rules and its digest. The exit code is 2 if it cannot be used."""
    policy = _load(file)
    if as_json:
        rules = [
            {"rule": rule.name, "verdict": rule.verdict, "tools": list(rule.tools), "condition": rule.condition or ""}
            for rule in policy.rules
        ]
        print_fields({"rules": rules, "digest": policy.digest})
        return
    table = Table("rule", "verdict", "tools", "condition", text="condition")
    for rule in policy.rules:
        cells = (rule.name, rule.verdict, " ".join(rule.tools), " ".join((rule.condition or "").split()))
        table.add_row(*map(printable, cells))
    out.print(table)
    out.print(f"{counted(len(policy.rules), 'rule')}, digest {policy.digest}")


def run_cases(file: RulesFile, cases_file: CasesFile, as_json: Json = False) -> None:
    """Run cases against a file of rules. The exit code is 1 if one comes out otherwise, 2 if a file cannot be used."""
    from gateway_svc.rules.cases import check_cases, load_cases

    policy = _load(file)
    try:
        cases = load_cases(cases_file, read_file(cases_file))
    except WrongFile as error:
        _refuse(error)
    checked = check_cases(policy, cases)
    failed = [case for case in checked if case.problem]
    reached = {case.rule for case in checked}
    unreached = [rule.name for rule in policy.rules if rule.name not in reached]
    if as_json:
        problems = [{"case": str(case.place), "problem": case.problem} for case in failed]
        print_fields({"cases": len(cases), "failed": problems, "rules_that_decide_none": unreached})
        raise Exit(EXIT_FAILED if failed else 0)
    for case in failed:
        out.print(printable(f"{case.place}: {case.problem}"))
    if unreached:
        out.print(f"No case is decided by: {', '.join(unreached)}")
    out.print(f"{len(cases) - len(failed)} of {len(cases)} cases come out as expected")
    raise Exit(EXIT_FAILED if failed else 0)


def try_on_record(
    file: RulesFile,
    since: Annotated[str, Option(help="Calls from then on: a time, or an age such as 12h or 7d.")] = "7d",
    target: Annotated[
        str, Option(envvar="GATEWAY_AUDIT_TARGET", help="The audit service's address, host:port.")
    ] = "127.0.0.1:50052",
    as_json: Json = False,
) -> None:
    """Ask the ledger what rules would have said of recorded calls, as far as the record tells."""
    from gateway_svc.rules.recorded import Trial

    trial = Trial(_load(file))
    try:
        asyncio.run(_read_record(trial, target, parse_time(since, time.time_ns() // 1_000_000)))
    except grpc.aio.AioRpcError as error:
        peer = LEDGER._replace(named_by="--target or GATEWAY_AUDIT_TARGET")
        raise Failed(told(target, peer, error), EXIT_FAILED, error) from None
    _print_json(trial) if as_json else _show(trial)


def _print_json(trial: "Trial") -> None:
    rules = [
        {
            "rule": rule.name,
            "verdict": rule.verdict,
            "calls": found.calls,
            "ran": found.ran,
            "undecided": found.undecided,
        }
        for rule in trial.policy.rules
        for found in [trial.by_rule[rule.name]]
    ]
    print_fields({"rules": rules, "calls": trial.calls, "calls_without_a_rule": trial.by_default})


def _load(path: Path) -> "Policy":
    from service_kit.rules.file import load_policy

    try:
        return load_policy(path, [read_file(path)])
    except WrongFile as error:
        _refuse(error)


def _refuse(error: WrongFile) -> NoReturn:
    raise Failed(str(error), EXIT_WRONG_FILE)


async def _read_record(trial: "Trial", target: str, from_ms: int) -> None:
    from onrecord.audit.v1 import questions_pb2 as pb
    from onrecord.audit.v1 import questions_pb2_grpc

    channel, metadata = open_channel(target)
    async with channel:
        stub: questions_pb2_grpc.QuestionServiceAsyncStub = questions_pb2_grpc.QuestionServiceStub(channel)
        labels: dict[tuple[str, str], dict[str, str]] = {}
        request = pb.ListSessionRecordsRequest(page_size=SESSIONS_A_PAGE)
        while True:
            page = await stub.ListSessionRecords(request, metadata=metadata)
            for record in page.sessions:
                labels[record.receipt.recorded_by, record.session.id] = dict(record.session.labels)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        wanted = pb.ToolCallFilter(created_from_ms=from_ms, shadow=False)
        async for part in stub.ExportToolCalls(pb.ExportToolCallsRequest(filter=wanted), metadata=metadata):
            for call in part.tool_calls:
                trial.add(call.tool_call, labels.get((call.receipt.recorded_by, call.tool_call.session_id)))


def _show(trial: "Trial") -> None:
    table = Table("rule", "verdict", "calls", "of them ran", "undecided")
    for rule in trial.policy.rules:
        found = trial.by_rule[rule.name]
        cells = (found.calls, found.ran, found.undecided)
        table.add_row(printable(rule.name), rule.verdict, *(f"{number:,}" for number in cells))
    table.add_row("(no rule)", "default", f"{trial.by_default:,}", "", "")
    out.print(table)
    out.print(counted(trial.calls, "call"))
    if undecided := [name for name, found in trial.by_rule.items() if found.undecided]:
        tools = ", ".join(printable(name) for name, _ in trial.tools_undecided.most_common(10))
        out.print(
            f"Could not be tried on {sum(trial.tools_undecided.values()):,} calls of {tools}, since they need what the "
            f"record does not have, such as arguments: {', '.join(undecided)}"
        )
