"""R12 for Claude's engine, whose tools are its own, and for rows that the ledger will never store."""

import asyncio
import json
import re
import secrets
import shlex
import sys
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from demo.script import Call, Script, Step
from tests.e2e.conftest import Pair, run_turn, text_of
from tests.e2e.test_no_content import files_with
from tests.recording.fake_audit import FakeAudit, serving
from tests.support import claude_cli
from tests.support.claude_cli import MODEL, Line, init, message, result, spent, tool_result, tool_use
from tests.support.conversations import conversation_name


@pytest.fixture
def sentinel() -> str:
    return f"Sentinel{secrets.token_hex(8)}"


@pytest.fixture
def password() -> str:
    return f"Pw{secrets.token_hex(8)}"


def claude(folder: Path, sentinel: str, password: str) -> tuple[dict[str, str], int]:
    """The settings of a gateway whose Claude handles the sentinel in every place, and how many calls it makes."""
    calls = [
        tool_use("toolu_1", "Read", {"file_path": "/w/secret.txt"}),
        tool_use("toolu_2", "Bash", {"command": f"PGPASSWORD={password} psql --password {password}; exit 4"}),
        tool_use("toolu_3", "Bash", {"command": f"cat > out.txt <<'END'\n{sentinel}\nEND", "description": sentinel}),
        tool_use("toolu_4", "Write", {"file_path": "/w/new.txt", "content": sentinel}),
        tool_use("toolu_5", "Edit", {"file_path": "/w/e.txt", "old_string": sentinel, "new_string": f"{sentinel}2"}),
        tool_use("toolu_6", "WebFetch", {"url": f"https://example.org/?token={password}", "prompt": sentinel}),
        tool_use("toolu_7", "mcp__notes__add", {"text": sentinel, "key": password}),
        tool_use("toolu_8", "Task", {"prompt": sentinel, "description": sentinel}),
    ]
    results = [
        tool_result("toolu_1", f"1\t{sentinel}", detail={"file": {"content": sentinel}}),
        tool_result("toolu_2", f"Exit code 4\n{sentinel}", error=True),
        tool_result("toolu_3", sentinel, detail={**claude_cli.BASH_DONE, "stdout": sentinel, "stderr": sentinel}),
        tool_result("toolu_4", f"failed on {sentinel}", error=True),
        tool_result("toolu_5", sentinel),
        tool_result("toolu_6", sentinel, detail={"code": 500, "result": sentinel}),
        tool_result("toolu_7", [{"type": "text", "text": sentinel}]),
    ]  # the last call's result never comes
    odd: list[Line] = [{"do": "raw", "text": f"debug {sentinel}"}, {"do": "stderr", "text": sentinel}]
    odd += [{"type": "assistant", "message": sentinel}, {"type": "rate_limit_event", "rate_limit_info": sentinel}]
    odd += [{"type": "rate_limit_event", "rate_limit_info": {"status": sentinel, "rateLimitType": f"{sentinel} x"}}]
    answer = [*message("msg_2", f"Done with {sentinel}"), result({MODEL: spent(2, 0.001)}, result=sentinel)]
    lines = [init(), *message("msg_1", sentinel, calls, thinking=sentinel), *results, *odd, *answer]
    plays = folder / "plays"
    plays.mkdir()
    (plays / "play-0.json").write_text(json.dumps({"lines": lines}))
    command = shlex.join([sys.executable, str(Path(claude_cli.__file__)), str(plays)])
    return {"GATEWAY_CLAUDE_COMMAND": command, "GATEWAY_AUDIT_CLAUDE": "on", "GATEWAY_LOG_LEVEL": "debug"}, len(calls)


def assert_told_by_text_alone(events, *secret: str) -> None:
    for event in events:
        if not event.HasField("text_delta"):
            assert not re.search("|".join(secret), str(event))


@pytest.mark.long
async def test_what_claude_s_own_tools_handle_is_not_on_the_record(make_pair, tmp_path, sentinel, password):
    pair: Pair = await make_pair(Script())
    audit = pair.start_audit(AUDIT_LOG_LEVEL="debug")
    env, calls = claude(tmp_path, sentinel, password)
    service = pair.start_gateway(**env)
    events = await run_turn(await pair.gateway(service), engine="claude", input=f"Look for {sentinel}")
    assert f"Done with {sentinel}" in text_of(events)
    rows = await pair.rows(calls)
    assert {row.engine for row in rows} == {"claude"}
    assert all(row.times_observed for row in rows)
    assert rows[-1].outcome == common_pb2.OUTCOME_INTERRUPTED
    await asyncio.sleep(0.2)
    transcript = conversation_name(events[0].turn_accepted.session_id)
    for secret in (sentinel, password):
        assert not any(secret.encode() in row.SerializeToString() for row in rows)
        assert files_with(pair.db.parent, secret) == []
        assert files_with(pair.state_dir, secret) == [transcript]
        for log in (service.stderr_text(), audit.stderr_text()):
            assert secret not in log
    assert_told_by_text_alone(events, sentinel, password)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["ollama", "claude"])
async def test_neither_dead_letters_nor_the_wire_hold_content(make_pair, tmp_path, engine, sentinel, password):
    """A ledger that rejects every row: what the gateway then keeps for somebody to look at, and what it had sent."""
    pair: Pair = await make_pair(Script())
    (pair.workspace / "secret.txt").write_text(f"{sentinel}\n")
    calls = (
        Call(name="bash", arguments={"command": f"cat secret.txt; PGPASSWORD={password} false"}),
        Call(name="write", arguments={"path": "new.txt", "content": sentinel}),
        Call(name="unheard_of", arguments={"content": sentinel, "key": password}),
    )
    pair.model.script = Script(steps=(Step(text=sentinel, tool_calls=calls), Step(text=f"Done with {sentinel}")))
    env, claude_calls = claude(tmp_path, sentinel, password)
    service = FakeAudit()

    async def reject(request: audit_pb2.RecordRequest, _context: object) -> audit_pb2.RecordResponse:
        said = [
            audit_pb2.Rejection(kind=kind, index=index, code=audit_pb2.REJECTION_CODE_INVALID, message="no")
            for kind, rows in (
                (audit_pb2.ROW_KIND_TOOL_CALL, request.tool_calls),
                (audit_pb2.ROW_KIND_MODEL_REQUEST, request.model_requests),
                (audit_pb2.ROW_KIND_SESSION, request.sessions),
            )
            for index in range(len(rows))
        ]
        return audit_pb2.RecordResponse(range=request.range, rejections=said)

    service.behave = reject
    async with serving(service) as target:
        pair.audit_address = target.address
        gateway = pair.start_gateway(**env)
        events = await run_turn(await pair.gateway(gateway), engine=engine, input=f"Look for {sentinel}")
        assert f"Done with {sentinel}" in text_of(events)
        expected = claude_calls if engine == "claude" else len(calls)
        await service.until(lambda: sum(len(request.tool_calls) for request in service.requests) >= expected)
        # In a thread: the ledger answers in this loop, and the gateway waits for its last answers before it ends.
        assert await asyncio.to_thread(gateway.terminate) == 0
    letters = [path for path in pair.state_dir.rglob("dead-letters/*") if path.is_file()]
    assert sum(path.read_text().count('"kind": "AuditRow"') for path in letters) >= expected
    transcript = conversation_name(events[0].turn_accepted.session_id)
    for secret in (sentinel, password):
        assert not any(secret.encode() in request.SerializeToString() for request in service.requests)
        assert files_with(pair.state_dir, secret) == [transcript]
        assert secret not in gateway.stderr_text()
    assert_told_by_text_alone(events, sentinel, password)
