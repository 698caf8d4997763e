"""The Python client against the pair as it runs in production, and the examples of its page as they are."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.client import Access, AsyncGateway, AsyncLedger, Decision, Gateway, Ledger, SessionSettings, ToolCall
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import REPOSITORY
from demo.script import Call, Script, Step
from recording import redact
from recording.locks import lock_file
from recording.logger import AuditRefused
from recording.producing.courier import SENDER_LOCK
from recording.show import Show
from tests.client.senders import sender_of
from tests.e2e.conftest import Pair, make_pair
from tests.e2e.test_security import Guarded

__all__ = ["make_pair"]

SCRIPT = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "touch ran"}),)), Step(text="Done.")))
PAGE, _, _ = (REPOSITORY / "docs" / "client.md").read_text().partition("\n## Recipes\n")
PAGES = PAGE + (REPOSITORY / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGES, re.DOTALL)


@contextmanager
def keep_rows(ledger: Ledger) -> Iterator[list[audit_pb2.AuditRow]]:
    """The rows that the ledger puts into its spool."""
    rows: list[audit_pb2.AuditRow] = []
    append = ledger._producer.spool.append

    def keep(row: audit_pb2.AuditRow) -> bool:
        rows.append(row)
        return append(row)

    ledger._producer.spool.append = keep  # type: ignore[method-assign,assignment] # it still appends
    yield rows


async def start(make_pair, **env: str) -> tuple[Pair, str]:
    pair = await make_pair(SCRIPT)
    pair.start_audit()
    return pair, pair.start_gateway(**env).address


@pytest.mark.long
async def test_the_examples_run_as_they_are_written(make_pair, tmp_path):
    assert len(EXAMPLES) == 5, "four on the page, one in README"
    pair, gateway = await start(make_pair, GATEWAY_TOOLS="bash=ask", GATEWAY_ANSWER_SECONDS="0.1")
    said = []
    for example in EXAMPLES:
        code = example.replace("127.0.0.1:50051", gateway).replace("127.0.0.1:50052", pair.audit_address)
        code = code.replace("~/.local/state/my-app", str(tmp_path / "my-app"))
        run = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        said.append(run.stdout)
    assert said[0].startswith("Done.")
    assert not (pair.workspace / "ran").exists(), "the decision of the second example kept it from running"
    rows = [row for row in await pair.rows(5) if row.engine == "my-app"]
    assert [(row.tool_name, row.args_summary, row.outcome) for row in rows] == [
        ("lookup", '{"city":{"type":"string","bytes":4}}', common_pb2.OUTCOME_SUCCEEDED),
        ("publish", '{"words":{"type":"number"}}', common_pb2.OUTCOME_SUCCEEDED),
    ]
    assert rows[0].result_bytes == len("high tide in Kiel at noon")
    assert rows[0].session_id == said[2].strip()


@pytest.mark.long
async def test_a_decision_lets_a_call_run_and_a_conversation_goes_on(make_pair):
    pair, address = await start(make_pair, GATEWAY_TOOLS="bash=ask")
    asked: list[str] = []

    async def decide(call: pb.ToolCallStarted) -> Decision:
        asked.append(call.args_summary)
        return Decision(True)

    async with AsyncGateway(address) as gateway:
        turn = await gateway.run("go", decide=decide, new_session=SessionSettings(labels={"user": "ada"})).wait()
        assert (turn.answer, asked) == ("Done.", ['{"command":"touch ran"}'])
        assert (pair.workspace / "ran").exists()
        again = gateway.run("again", session_id=turn.session_id)
        pieces = []
        async for event in again:
            if event.HasField("tool_call_started"):
                await gateway.answer(event.tool_call_started, Decision(False, "no"))
            if event.HasField("text_delta"):
                pieces.append(event.text_delta.text)
        assert ("".join(pieces), again.session_id) == ("Done.", turn.session_id)
        with pytest.raises(grpc.aio.AioRpcError, match="input is empty"):
            await gateway.run(" ").wait()


@pytest.mark.long
async def test_a_turn_can_be_cancelled_from_another_thread(make_pair):
    pair, address = await start(make_pair)
    pair.model.script = Script(steps=(Step(text="slow", delay_ms=60_000),))

    def run() -> grpc.StatusCode:
        with Gateway(address) as gateway:
            turn = gateway.run("go")
            try:
                for _ in turn:
                    turn.cancel()
            except grpc.RpcError as error:
                return error.code()
        raise AssertionError("the turn was not cancelled")

    assert await asyncio.to_thread(run) is grpc.StatusCode.CANCELLED


@pytest.mark.long
async def test_exceptions_become_outcomes_and_go_on_and_no_message_is_recorded(make_pair, tmp_path):
    pair, _ = await start(make_pair)
    async with AsyncLedger(tmp_path / "app", pair.audit_address, session_id="s-1", model="m") as ledger:
        for error in (ValueError("SENTINEL"), TimeoutError(), asyncio.CancelledError()):
            with pytest.raises(type(error)), ledger.tool_call("lookup", {"SENTINEL": object()}, turn_id="t-1"):
                raise error
        with ledger.tool_call("lookup") as call:
            call.error, call.http_status, call.exit_code = "it is not there", 404, 3
    rows = await pair.rows(4)
    assert [(row.outcome, row.error) for row in rows] == [
        (common_pb2.OUTCOME_FAILED, "the tool raised ValueError"),
        (common_pb2.OUTCOME_TIMED_OUT, "the tool raised TimeoutError"),
        (common_pb2.OUTCOME_CANCELLED, "the tool raised CancelledError"),
        (common_pb2.OUTCOME_FAILED, "it is not there"),
    ]
    assert (rows[3].http_status, rows[3].exit_code) == (404, 3)
    assert {(row.session_id, row.engine, row.model) for row in rows} == {("s-1", "application", "m")}
    assert [row.turn_id for row in rows] == ["t-1"] * 3 + [""]


@pytest.mark.long
async def test_an_application_that_was_killed_leaves_an_interrupted_row(make_pair, tmp_path):
    pair, _ = await start(make_pair)
    code = f"""
import os
from onrecord.client import Ledger
with Ledger({str(tmp_path / "app")!r}, {pair.audit_address!r}) as ledger, ledger.tool_call("lookup", {{"a": 1}}):
    os.kill(os.getpid(), 9)
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=False, timeout=120)
    assert ended.returncode == -9
    async with AsyncLedger(tmp_path / "app", pair.audit_address):
        [row] = await pair.rows(1)
    assert (row.tool_name, row.outcome) == ("lookup", common_pb2.OUTCOME_INTERRUPTED)


def test_strict_refuses_what_cannot_be_put_on_disk(tmp_path):
    with Ledger(tmp_path, mode="strict") as ledger:
        ledger._producer.spool.append_intent = lambda row: False  # type: ignore[method-assign] # the disk is full
        ran = False
        with pytest.raises(AuditRefused), ledger.tool_call("lookup"):
            ran = True
        assert not ran


def test_a_turn_belongs_to_a_session_or_begins_one():
    with Gateway("127.0.0.1:9") as gateway, pytest.raises(ValueError, match="give one of them"):
        gateway.run("go", session_id="s-1", new_session=SessionSettings())


def test_what_belongs_together_is_asked_for_together(tmp_path):
    with pytest.raises(ValueError, match="belong together"):
        Gateway("127.0.0.1:9", Access(cert=Path("cert.pem")))
    assert "secret" not in repr(Access(token="secret"))
    assert list(Access(token="secret").metadata()) == [("authorization", "Bearer secret")]


class Odd:
    """A value that JSON does not have."""


CIRCLE: dict[str, Any] = {}
CIRCLE["itself"] = CIRCLE


@pytest.mark.parametrize(
    ("arguments", "summary"),
    [
        ({(1, 2): 3, "a": "b"}, '{"a":{"type":"string","bytes":5},"$more":1}'),
        ({"circle": CIRCLE}, '{"circle":{"type":"string","bytes":6}}'),
        ({"large": 10**5_000}, '{"large":{"type":"string","bytes":5}}'),
        ({"odd": Odd()}, '{"odd":{"type":"string","bytes":5}}'),
        (MappingProxyType({"a": 1}), '{"a":{"type":"number"}}'),
    ],
    ids=["keys", "circle", "large", "odd", "mapping"],
)
def test_whatever_its_arguments_are_a_call_runs_and_has_its_row(tmp_path, arguments, summary):
    with (
        Ledger(tmp_path) as ledger,
        keep_rows(ledger) as rows,
        ledger.tool_call("lookup", arguments),
    ):
        pass
    assert [(row.args_summary, row.outcome) for row in rows] == [(summary, common_pb2.OUTCOME_SUCCEEDED)]


@pytest.mark.parametrize(
    ("kept", "summary"),
    [
        ("shown", '{"path":"/srv/app"}'),
        ("names", '{"path":{"type":"path","parts":2}}'),
        ("none", '{"$arguments":{"count":1,"bytes":20}}'),
    ],
)
def test_a_ledger_keeps_of_arguments_what_it_was_told_to(tmp_path, monkeypatch, kept, summary):
    monkeypatch.setattr("recording.redact.summary._shown", {})
    monkeypatch.setattr("recording.redact.summary._named", {})
    redact.show_fields({"lookup": {"path": Show.PATH}})
    with (
        Ledger(tmp_path, arguments=kept) as ledger,
        keep_rows(ledger) as rows,
        ledger.tool_call("lookup", {"path": "/srv/app"}),
    ):
        pass
    assert [json.loads(row.args_summary) for row in rows] == [json.loads(summary)]


def test_a_ledger_refuses_a_choice_of_arguments_that_there_is_not(tmp_path):
    with pytest.raises(ValueError, match="must be one of shown, names, none"):
        Ledger(tmp_path, arguments="some")  # type: ignore[arg-type]


def told(call: ToolCall, error: Exception) -> Exception:
    call.result_bytes = 1.5  # type: ignore[assignment] # as untyped programs do
    return error


def test_a_result_that_no_row_can_hold_changes_nothing_for_the_body(tmp_path):
    with Ledger(tmp_path) as ledger, keep_rows(ledger) as rows:
        with pytest.raises(KeyError), ledger.tool_call("lookup") as call:
            raise told(call, KeyError())
        with ledger.tool_call("lookup") as call:
            call.http_status = "200"  # type: ignore[assignment]
    assert [row.outcome for row in rows] == [common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_SUCCEEDED]


def test_a_ledger_may_be_closed_before_the_end_of_with_and_after_it(tmp_path):
    with Ledger(tmp_path) as ledger:
        assert ledger.close()
    assert ledger.close()


async def test_a_ledger_of_asyncio_may_be_closed_before_the_end_of_with_and_after_it(tmp_path):
    async with AsyncLedger(tmp_path) as ledger:
        with ledger.tool_call("lookup"):
            pass
        assert not await ledger.close()
    assert not await ledger.close()


def test_a_ledger_that_is_not_open_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="not open: open it with `with`"):
        Ledger(tmp_path).tool_call("lookup")


async def test_a_ledger_whose_end_is_cancelled_leaves_nothing_running(tmp_path):
    (tmp_path / "spool").mkdir()
    async with asyncio.timeout(30):
        held = lock_file(tmp_path / "spool" / SENDER_LOCK)  # as if somebody sent, and got nowhere
        ledger = AsyncLedger(tmp_path, drain_seconds=60)
        await ledger.__aenter__()
        with ledger.tool_call("lookup"):
            pass
        closing = asyncio.create_task(ledger.close())
        await asyncio.sleep(0.1)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert held is not None
        os.close(held)


async def answer_of(kind: str, address: str, decide: Callable[[pb.ToolCallStarted], bool]) -> str:
    """What a turn whose calls are decided on so ends with, by the client with asyncio or by the one without."""

    def run() -> str:
        with Gateway(address) as gateway:
            return gateway.run("go", decide=decide).wait().answer

    if kind == "sync":
        return await asyncio.to_thread(run)

    async def decide_async(call: pb.ToolCallStarted) -> bool:
        return await asyncio.to_thread(decide, call)

    async with AsyncGateway(address) as gateway:
        return (await gateway.run("go", decide=decide_async).wait()).answer


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_decision_that_comes_too_late_does_not_end_the_turn_for_its_client(make_pair, kind):
    _, address = await start(make_pair, GATEWAY_TOOLS="bash=ask", GATEWAY_ANSWER_SECONDS="0.1")

    def decide(call: pb.ToolCallStarted) -> bool:
        time.sleep(1)
        return True

    assert await answer_of(kind, address, decide) == "Done."


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("overtaken_by", ["another answer", "other rules"])
async def test_a_decision_that_was_overtaken_does_not_end_the_turn_for_its_client(make_pair, kind, overtaken_by):
    pair = await make_pair(SCRIPT)
    rules = pair.workspace.parent / "rules.toml"
    rules.write_text('[[rules]]\nname = "first"\ntools = ["bash"]\nverdict = "ask"\n')
    pair.start_audit()
    address = pair.start_gateway(GATEWAY_RULES_FILE=str(rules)).address

    def overtake(call: pb.ToolCallStarted) -> bool:
        if overtaken_by == "another answer":
            with Gateway(address) as somebody_else:
                somebody_else.answer(call, Decision(allow=False, reason="not today"))
        else:
            rules.write_text(rules.read_text().replace("first", "second"))
            time.sleep(3)
        return True

    assert await answer_of(kind, address, overtake) == "Done."
    assert not (pair.workspace / "ran").exists()


@pytest.mark.long
async def test_it_comes_in_with_mtls_and_a_token(make_pair, tmp_path):
    guarded = Guarded(await make_pair(Script(steps=(Step(text="Done."),))), tmp_path)
    guarded.start()
    token_file = tmp_path / "caller-token"
    token_file.write_text(guarded.tokens["caller"] + "\n")
    shown = Access(ca=guarded.ca.path, cert=guarded.client.certificate, key=guarded.client.key)
    target = guarded.gateway.address.replace("127.0.0.1", "localhost")

    def run(access: Access) -> str:
        with Gateway(target, access) as gateway:
            return gateway.run("go").wait().answer

    assert await asyncio.to_thread(run, replace(shown, token_file=token_file)) == "Done."
    async with AsyncGateway(target, replace(shown, token=guarded.tokens["caller"])) as gateway:
        assert (await gateway.run("go").wait()).answer == "Done."
    with pytest.raises(grpc.RpcError) as refused:
        await asyncio.to_thread(run, replace(shown, token="onrecord_nobody"))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

    guarded.add("audit", "producer", name="my-app")
    audit = guarded.audit.address.replace("127.0.0.1", "localhost")
    for token, drain_seconds, sent in ((guarded.tokens["my-app"], 20, True), ("onrecord_nobody", 1, False)):
        access = replace(shown, token=token)
        ledger = AsyncLedger(tmp_path / token, audit, access, producer_name="my-app", drain_seconds=drain_seconds)
        await ledger.__aenter__()
        with ledger.tool_call("lookup"):
            pass
        assert await ledger.close() is sent, "what cannot be sent is kept"
        os.kill(sender_of(tmp_path / token), signal.SIGTERM)
