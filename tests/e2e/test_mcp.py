"""MCP tools in the pair: each call has its row, whatever becomes of the server, and nothing is left at the end."""

import json
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import run_command
from demo.script import Call, Script, Step
from tests.e2e.conftest import kinds, run_turn, text_of
from tests.e2e.test_no_content import files_with
from tests.support.conversations import conversation_name
from tests.support.processes import parent_of, processes_of

# by its path: importing it would import all of the SDK
PROGRAM = str(Path(__file__).parents[1] / "support" / "mcp_server.py")


def mcp_file(folder: Path, **more: Any) -> dict[str, str]:
    """The setting for one server, `t`."""
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"t": {"command": sys.executable, "args": [PROGRAM], **more}}}))
    return {"GATEWAY_MCP_FILE": str(path)}


def calls_of(*calls: Call) -> Script:
    return Script(steps=(Step(tool_calls=calls), Step(text="Done.")))


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "api"), [("ollama", "chat"), ("openai", "chat"), ("openai", "responses"), ("anthropic", "chat")]
)
async def test_a_call_has_one_row_of_the_tool_s_own_name_on_each_engine(make_pair, tmp_path, engine, api):
    name = "t.echo" if engine == "ollama" else "t__echo"
    pair = await make_pair(calls_of(Call(name=name, arguments={"text": "hi", "note": "n"})))
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_OPENAI_API=api, **mcp_file(tmp_path, record={"echo": ["note"]}))
    events = await run_turn(await pair.gateway(service), engine=engine)
    assert text_of(events) == "Done."
    asked = next(request.json for request in pair.model.requests if request.method == "POST")
    assert name in json.dumps(asked["tools"])
    (row,) = await pair.rows(1)
    assert (row.engine, row.tool_name, row.outcome) == (engine, "t.echo", common_pb2.OUTCOME_SUCCEEDED)
    assert json.loads(row.args_summary) == {"note": "n", "text": {"type": "string", "bytes": 2}}
    assert (row.result_bytes, row.result_truncated, row.HasField("exit_code")) == (2, False, False)


@pytest.mark.long
async def test_a_server_killed_in_a_call_leaves_its_row_and_a_session_that_goes_on(make_pair, tmp_path):
    pair = await make_pair(calls_of(Call(name="t.sleep", arguments={"seconds": 60})))
    pair.start_audit()
    service = pair.start_gateway(**mcp_file(tmp_path))
    gateway = await pair.gateway(service)
    events = []
    async for event in gateway.RunTurn(pb.RunTurnRequest(input="go", engine="ollama")):
        events.append(event)
        if event.HasField("tool_call_started"):
            (server,) = [pid for pid in processes_of(PROGRAM) if _is_child(pid, service.pid)]
            os.kill(server, signal.SIGKILL)
    assert text_of(events) == "Done."
    (row,) = await pair.rows(1)
    assert (row.tool_name, row.outcome) == ("t.sleep", common_pb2.OUTCOME_INTERRUPTED)
    assert "ended in the middle of the call" in row.error

    pair.model.script = calls_of(Call(name="t.echo", arguments={"text": "hi"}))
    session_id = events[0].turn_accepted.session_id
    events = await run_turn(gateway, session_id=session_id)
    assert text_of(events) == "Done."
    _, row = await pair.rows(2)
    assert row.outcome == common_pb2.OUTCOME_SUCCEEDED


@pytest.mark.long
async def test_a_call_waits_for_its_answer_and_a_denied_one_has_its_row(make_pair, tmp_path):
    script = calls_of(Call(name="t.echo", arguments={"text": "hi"}), Call(name="t.die"))
    pair = await make_pair(script)
    pair.start_audit()
    service = pair.start_gateway(**mcp_file(tmp_path, tools={"echo": "ask", "die": "deny"}))
    gateway, approvals = await pair.gateway(service), await pair.approvals(service)
    waited = []
    async for event in gateway.RunTurn(pb.RunTurnRequest(input="go", engine="ollama")):
        if event.tool_call_started.HasField("pending"):
            waited.append(event.tool_call_started.tool_name)
            await approvals.AnswerToolCall(
                approvals_pb2.AnswerToolCallRequest(
                    tool_call_id=event.tool_call_started.tool_call_id, verdict=common_pb2.VERDICT_DENIED
                )
            )
    assert waited == ["t.echo"]
    assert {row.tool_name: row.outcome for row in await pair.rows(2)} == {
        "t.echo": common_pb2.OUTCOME_DENIED,
        "t.die": common_pb2.OUTCOME_DENIED,
    }


@pytest.mark.long
async def test_no_content_of_an_mcp_call_is_on_the_record(make_pair, tmp_path):
    """Not in its arguments, its results, its errors, or what the server writes beside its messages."""
    sentinel, token = f"Sentinel{secrets.token_hex(8)}", f"Tk{secrets.token_hex(12)}"
    calls = (
        Call(name="t.echo", arguments={"text": sentinel, "note": f"see {token}"}),
        Call(name="t.fail", arguments={"text": sentinel}),
        Call(name="t.environment"),
        Call(name="t.echo", arguments={"text": {"a": sentinel}}),
        Call(name="t.unheard_of", arguments={"content": sentinel}),
    )
    pair = await make_pair(calls_of(*calls))
    audit = pair.start_audit(AUDIT_LOG_LEVEL="debug")
    command = f"echo {sentinel}; echo {sentinel} >&2; exec {sys.executable} {PROGRAM}"
    env = mcp_file(tmp_path, command="sh", args=["-c", command], env={"TOKEN": "${A_TOKEN}"}, record={"echo": ["note"]})
    service = pair.start_gateway(**env, A_TOKEN=token, GATEWAY_LOG_LEVEL="debug")
    events = await run_turn(await pair.gateway(service), engine="ollama", input=f"Look for {sentinel}")
    assert text_of(events) == "Done."
    rows = await pair.rows(len(calls))
    told = str([m["content"] for m in pair.model.requests[-1].json["messages"] if m["role"] == "tool"])
    assert sentinel in told
    assert token in told
    transcript = conversation_name(events[0].turn_accepted.session_id)
    service.terminate()
    for secret in (sentinel, token):
        assert not any(secret.encode() in row.SerializeToString() for row in rows)
        assert not any(secret in str(event) for event in events)
        assert files_with(pair.db.parent, secret) == []
        assert files_with(pair.state_dir, secret) == [transcript]
        assert secret not in service.stderr_text() + audit.stderr_text()


@pytest.mark.long
async def test_a_gateway_that_ends_leaves_no_server_behind(make_pair, tmp_path):
    pair = await make_pair(calls_of(Call(name="t.sleep", arguments={"seconds": 60})))
    pair.start_audit()
    service = pair.start_gateway(**mcp_file(tmp_path))
    (server,) = [pid for pid in processes_of(PROGRAM) if _is_child(pid, service.pid)]
    gateway = await pair.gateway(service)
    events = []
    async for event in gateway.RunTurn(pb.RunTurnRequest(input="go", engine="ollama")):
        events.append(event)
        if event.HasField("tool_call_started"):
            service.process.terminate()
    assert kinds(events)[-1] == "turn_finished"
    assert service.process.wait(30) == 0
    assert server not in processes_of(PROGRAM)
    (row,) = await pair.rows(1)
    assert row.outcome == common_pb2.OUTCOME_CANCELLED


@pytest.mark.long
async def test_a_file_that_is_wrong_stops_the_start_with_a_sentence(make_pair, tmp_path):
    pair = await make_pair(Script())
    pair.audit_address = "127.0.0.1:1"

    ran = run_command("gateway_svc", pair.gateway_env(mcp_file(tmp_path, url="http://e")), "serve")
    assert ran.returncode == 2
    assert "GATEWAY_MCP_FILE: t: name either a command or a url" in ran.stderr


def _is_child(pid: int, parent: int) -> bool:
    try:
        return parent_of(pid) == parent
    except OSError:
        return False
