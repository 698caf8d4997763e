"""Who acted, for whom, and by whose decision: on every row, and nobody can forge it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.client.ledger import AsyncLedger
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from demo.script import Call, Script, Step
from service_kit.access.roles import Role, make_token
from tests.e2e.conftest import run_turn
from tests.e2e.test_mcp import mcp_file
from tests.e2e.test_no_content_of_claude import claude
from tests.e2e.test_security import bearer, refusal
from tests.e2e.test_stops import until
from tests.intake_svc.conftest import DoorProcess
from tests.intake_svc.dialects.exports import SAMPLES, read, sample
from tests.intake_svc.exports import post

CLAIMS: Mapping[str, Any] = {"on_behalf_of": "carol", "agent": common_pb2.Software(name="helper", version="1.2")}
ALLOWED, DENIED, UNDECIDED = common_pb2.VERDICT_ALLOWED, common_pb2.VERDICT_DENIED, common_pb2.VERDICT_UNSPECIFIED
CONFIGURATION, RULE = common_pb2.DECISION_SOURCE_CONFIGURATION, common_pb2.DECISION_SOURCE_RULE
PERSON, OWN, NONE = (
    common_pb2.DECISION_SOURCE_PERSON,
    common_pb2.DECISION_SOURCE_AGENT_OWN,
    common_pb2.DECISION_SOURCE_NONE,
)
SCRIPT = Script(
    steps=(
        Step(
            tool_calls=(
                Call(name="glob", arguments={"pattern": "*"}),
                Call(name="read", arguments={"path": "../outside"}),
                Call(name="webfetch", arguments={"url": "http://169.254.169.254/"}),
                Call(name="no_such_tool"),
                Call(name="t.echo", arguments={"text": "hi"}),
                Call(name="write", arguments={"path": "made.txt", "content": "x"}),
            )
        ),
        Step(text="Done."),
    )
)
WAYS = {
    "glob": (common_pb2.OUTCOME_SUCCEEDED, CONFIGURATION, ALLOWED, ""),
    "read": (common_pb2.OUTCOME_DENIED, RULE, DENIED, "workspace"),
    "webfetch": (common_pb2.OUTCOME_DENIED, RULE, DENIED, "webfetch_address"),
    "unknown": (common_pb2.OUTCOME_INVALID_CALL, NONE, UNDECIDED, ""),
    "t.echo": (common_pb2.OUTCOME_SUCCEEDED, CONFIGURATION, ALLOWED, ""),
    "write": (common_pb2.OUTCOME_SUCCEEDED, PERSON, ALLOWED, ""),
}


async def answer_all(approvals: Any, events: Any) -> None:
    """Allows whatever asks."""
    async for event in events:
        if event.tool_call_started.HasField("pending"):
            await approvals.AnswerToolCall(allow(event.tool_call_started))


def allow(call: Any, **fields: Any) -> approvals_pb2.AnswerToolCallRequest:
    asked = {"tool_call_id": call.tool_call_id, "verdict": ALLOWED, "args_digest": call.args_digest}
    return approvals_pb2.AnswerToolCallRequest(**{**asked, **fields})


def seen(row: audit_pb2.AuditRow) -> tuple[Any, ...]:
    return row.outcome, row.decision.source, row.decision.verdict, row.decision.rule


@pytest.mark.long
async def test_equal_calls_at_gateways_that_share_a_file_of_keys_have_equal_digests(make_pair, tmp_path):
    pair = await make_pair(
        Script(steps=(Step(tool_calls=(Call(name="glob", arguments={"pattern": "*"}),)), Step(text="Done.")))
    )
    pair.start_audit()
    keys = tmp_path / "keys"
    keys.write_text(f"may {'a1' * 32}\n")
    for name, shared in (
        ("one", {"GATEWAY_ARGS_KEY_FILE": str(keys)}),
        ("two", {"GATEWAY_ARGS_KEY_FILE": str(keys)}),
        ("three", {}),
    ):
        await run_turn(await pair.gateway(pair.start_gateway(GATEWAY_STATE_DIR=str(tmp_path / name), **shared)))
    one, two, three = ((row.args_digest.key_id, row.args_digest.hmac_sha256) for row in await pair.rows(3))
    assert one == two
    assert one[0] == "may"
    assert (three[0] == "may", three[1] == one[1]) == (False, False), "one of its own has an id of its own"


@pytest.mark.long
async def test_a_row_of_every_way_in_which_a_tool_can_run_says_what_decided_and_how_it_came(make_pair, tmp_path):
    pair = await make_pair(SCRIPT)
    pair.start_audit()
    command, claudes = claude(tmp_path, "sentinel", "password")
    env = mcp_file(tmp_path) | command | {"GATEWAY_TOOLS": "glob,read,webfetch,write=ask"}
    service = pair.start_gateway(**env, GATEWAY_ANTHROPIC_URL="http://127.0.0.1:1")
    gateway, approvals = await pair.gateway(service), await pair.approvals(service)
    await until(lambda: '"mcp.connected"' in service.stderr_text())  # however slow it is to start

    # The loop, and steps in parallel; MCP; a person; and a shadow, whose calls are not run.
    shadows = pb.SessionSettings(shadows=[pb.EngineChoice(engine="openai")])
    await answer_all(approvals, gateway.RunTurn(pb.RunTurnRequest(input="go", new_session=shadows, **CLAIMS)))
    rows = await pair.rows(len(WAYS), shadow=False)
    assert {row.tool_name: seen(row) for row in rows} == WAYS
    assert {(row.on_behalf_of, row.agent.name, row.principal) for row in rows} == {("carol", "helper", "")}
    assert {row.mcp_server.name for row in rows} == {"", "t"}
    assert all(len(row.args_digest.hmac_sha256) == 32 for row in rows)
    [approved] = [row for row in rows if row.tool_name == "write"]
    assert approved.decision.decided_at_ms
    shown = await pair.rows(len(WAYS), shadow=True)
    assert {(row.decision.source, row.decision.verdict) for row in shown} == {(NONE, UNDECIDED)}

    # A turn whose engine is down goes on with another; a request that is sent again runs nothing again.
    settings = pb.SessionSettings(engine="anthropic", fallback=pb.EngineChoice(engine="ollama"))
    for _ in range(2):
        request = pb.RunTurnRequest(input="go", new_session=settings, request_id="once", **CLAIMS)
        await answer_all(approvals, gateway.RunTurn(request))
    # Claude, and an application.
    await run_turn(gateway, engine="claude")
    async with AsyncLedger(tmp_path / "application", pair.audit_address) as ledger:
        with ledger.tool_call("lookup", {"city": "Kiel"}):
            pass
    # Other agents, by all that they sent us as OpenTelemetry.
    door = DoorProcess(pair.start_door())
    calls = set[tuple[str, str]]()  # one that both logs and spans of a sample tell is one row
    for name in SAMPLES:
        export = sample(name)
        signals = {
            "/v1/traces": ExportTraceServiceRequest(resource_spans=[export.spans]),
            "/v1/logs": ExportLogsServiceRequest(resource_logs=[export.logs]),
        }
        for path, signal in signals.items():
            status, _, _ = await asyncio.to_thread(post, door.http, path, signal.SerializeToString())
            assert status == 200, name
        calls |= {(name, call.provider_call_id or call.id) for call in read(export).calls}
    told = await pair.rows(len(calls), sources=[common_pb2.SOURCE_OTLP])
    assert len(told) == len(calls) > len(SAMPLES) / 2
    assert CONFIGURATION in {row.decision.source for row in told}, "one says what decided"

    every = 3 * len(WAYS) + claudes + 1 + len(calls)
    rows = await pair.rows(every)
    assert len(rows) == every
    own = [row for row in rows if row.engine == "claude" and row.source == common_pb2.SOURCE_OWN_LOOP]
    assert {row.decision.source for row in own} <= {OWN, NONE}
    assert {row.agent.name for row in own} == {"claude-code"}
    assert "notes" in {row.mcp_server.name for row in own}
    [application] = [row for row in rows if row.source == common_pb2.SOURCE_CLIENT_LIBRARY]
    assert seen(application) == (common_pb2.OUTCOME_SUCCEEDED, OWN, ALLOWED, "")

    # A question that a killed gateway leaves behind is told.
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go"))
    async for event in turn:
        if event.tool_call_started.HasField("pending"):
            break
    service.kill()
    pair.start_gateway(**env)
    every += len(WAYS)
    async with asyncio.timeout(30):
        while not (
            left := [
                row
                for row in await pair.rows(1)
                if row.outcome == common_pb2.OUTCOME_INTERRUPTED and row.tool_name == "write"
            ]
        ):
            await asyncio.sleep(0.05)
    assert seen(left[0]) == (common_pb2.OUTCOME_INTERRUPTED, PERSON, UNDECIDED, "")
    assert "waited for an answer, so the tool did not run" in left[0].error

    for row in await pair.rows(1):
        assert row.source, row
        assert row.decision.source, row


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, Any]:
    roles = {"ada": [Role.CALLER], "bob": [Role.APPROVER], "eve": [Role.CALLER], "ops": [Role.ADMIN]}
    made = {name: make_token(name, given) for name, given in roles.items()}
    (tmp_path / "callers.toml").write_text("\n".join(table for _, table in made.values()))
    return {name: bearer(token) for name, (token, _) in made.items()}


@pytest.mark.long
async def test_a_call_is_approved_by_whom_the_deployment_wants_and_the_row_has_both_names(make_pair, tokens, tmp_path):
    pair = await make_pair(
        Script(steps=(Step(tool_calls=(Call(name="glob", arguments={"pattern": "*"}),)), Step(text="ok")))
    )
    pair.start_audit()
    listed = {"GATEWAY_TOKENS_FILE": str(tmp_path / "callers.toml"), "GATEWAY_TOOLS": "glob=ask"}
    service = pair.start_gateway(**listed, GATEWAY_APPROVAL_BY_OTHERS="true")
    gateway, approvals = await pair.gateway(service), await pair.approvals(service)
    watch = approvals.WatchPendingToolCalls(approvals_pb2.WatchPendingToolCallsRequest(), metadata=tokens["bob"])
    assert not (await watch.read()).added

    # Who it says that it acts for is a claim: it makes nobody else of the caller.
    request = pb.RunTurnRequest(input="go", on_behalf_of="bob", agent=common_pb2.Software(name="ops"))
    turn = gateway.RunTurn(request, metadata=tokens["ada"])
    [call] = (await watch.read()).added
    assert (call.principal, call.on_behalf_of, call.tool_name) == ("ada", "bob", "glob")
    for name, waiting in (("ada", 1), ("eve", 0), ("ops", 1), ("bob", 1)):
        page = await approvals.ListPendingToolCalls(approvals_pb2.ListPendingToolCallsRequest(), metadata=tokens[name])
        assert len(page.tool_calls) == waiting, name
    for name in ("ada", "eve", "ops"):
        assert (
            await refusal(approvals.AnswerToolCall(allow(call), metadata=tokens[name]))
            == grpc.StatusCode.PERMISSION_DENIED
        )
    for wrong in (common_pb2.ArgsDigest(), common_pb2.ArgsDigest(hmac_sha256=b"x" * 32)):
        asked = approvals.AnswerToolCall(allow(call, args_digest=wrong), metadata=tokens["bob"])
        assert await refusal(asked) == grpc.StatusCode.FAILED_PRECONDITION
    await approvals.AnswerToolCall(allow(call, reason="looks fine"), metadata=tokens["bob"])
    assert (await watch.read()).gone_ids == [call.tool_call_id]
    assert [event async for event in turn][-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    late = approvals_pb2.AnswerToolCallRequest(tool_call_id=call.tool_call_id, verdict=DENIED)
    assert await refusal(approvals.AnswerToolCall(late, metadata=tokens["bob"])) == grpc.StatusCode.ALREADY_EXISTS
    [row] = await pair.rows(1)
    assert (row.principal, row.on_behalf_of, row.agent.name) == ("ada", "bob", "ops")
    decision = row.decision
    assert (decision.source, decision.verdict, decision.decided_by) == (PERSON, ALLOWED, "bob")
    assert decision.reason == "looks fine"
    assert decision.decided_at_ms >= call.asked_at_ms
    for condition in ({"principal": "ada"}, {"decided_by": "bob"}, {"agent": common_pb2.Software(name="ops")}):
        assert len(await pair.rows(1, **condition)) == 1
    service.terminate()
    assert (await watch.code()) == grpc.StatusCode.UNAVAILABLE


@pytest.mark.long
async def test_without_names_nobody_is_the_principal_whatever_the_client_claims(make_pair):
    pair = await make_pair(
        Script(steps=(Step(tool_calls=(Call(name="glob", arguments={"pattern": "*"}),)), Step(text="ok")))
    )
    pair.start_audit()
    service = pair.start_gateway()
    await run_turn(await pair.gateway(service), **CLAIMS)
    [row] = await pair.rows(1)
    assert (row.principal, row.on_behalf_of) == ("", "carol")
    wrong: list[Mapping[str, Any]] = [
        {"on_behalf_of": "x" * 129},
        {"on_behalf_of": "a\nb"},
        {"agent": common_pb2.Software(version="1")},
    ]
    gateway = await pair.gateway(service)
    for fields in wrong:
        assert await refusal(gateway.RunTurn(pb.RunTurnRequest(input="go", **fields)).read()) == (
            grpc.StatusCode.INVALID_ARGUMENT
        )
