"""What people and models say is nobody else's, and not on the record."""

import asyncio
import json
import secrets
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from demo.script import Call, Script, Step
from service_kit.access.roles import Role
from tests.e2e.conftest import run_turn
from tests.e2e.test_logs import lines_of
from tests.e2e.test_mcp import mcp_file
from tests.e2e.test_no_content import files_with
from tests.hostile.record.conftest import Listed
from tests.support.collector import attributes, collecting
from tests.support.conversations import conversation_name
from tests.support.scrapes import scrape

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(120)]

ENGINES = (("ollama", "chat"), ("openai", "chat"), ("openai", "responses"), ("anthropic", "chat"))


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


async def test_a_session_is_its_callers_whatever_else_its_caller_may(make_pair, tmp_path):
    """An administrator's sessions, however they begin, are hidden from others, as are its turns and its request ids."""
    listed = Listed(
        tmp_path, {"boss": [Role.CALLER, Role.ADMIN], "bob": [Role.CALLER], "chief": [Role.CALLER, Role.ADMIN]}
    )
    boss, bob, chief = map(listed.shown_by, ("boss", "bob", "chief"))
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_TOKENS_FILE=str(listed.path)))
    settings = pb.SessionSettings(system_prompt="the boss's")
    created = (await gateway.CreateSession(pb.CreateSessionRequest(settings=settings), metadata=boss)).session.id
    request = pb.RunTurnRequest(input="go", request_id="r-1", new_session=settings)
    events = [event async for event in gateway.RunTurn(request, metadata=boss)]
    accepted = events[0].turn_accepted
    for session_id in (created, accepted.session_id):
        assert await code_of(gateway.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=bob)) == (
            grpc.StatusCode.NOT_FOUND
        )
        go_on = gateway.RunTurn(pb.RunTurnRequest(input="go", session_id=session_id), metadata=bob)
        assert await code_of(go_on.read()) == grpc.StatusCode.NOT_FOUND
        await gateway.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=chief)
    said = pb.GetTranscriptRequest(session_id=accepted.session_id)
    for stranger in (bob, chief):  # an administrator sees the session, and not what was said in it
        assert await code_of(gateway.GetTranscript(said, metadata=stranger)) == grpc.StatusCode.NOT_FOUND
    told = await gateway.GetTranscript(said, metadata=boss)
    assert [entry.user_text or entry.model_answer.text for entry in told.entries] == ["go", "done"]
    attach = gateway.AttachTurn(pb.AttachTurnRequest(turn_id=accepted.turn_id), metadata=bob)
    assert await code_of(attach.read()) == grpc.StatusCode.NOT_FOUND
    assert not (await gateway.ListSessions(pb.ListSessionsRequest(), metadata=bob)).sessions
    assert len((await gateway.ListSessions(pb.ListSessionsRequest(), metadata=chief)).sessions) == 2
    again = [event async for event in gateway.RunTurn(request, metadata=chief)]
    assert again[0].turn_accepted.turn_id != accepted.turn_id, "a request id of another administrator is another"
    assert again[0].turn_accepted.session_id not in (created, accepted.session_id)


async def test_a_persons_reason_goes_to_the_model_and_the_log_says_who_answered(make_pair, tmp_path):
    listed = Listed(tmp_path, {"ada": [Role.CALLER], "bob": [Role.APPROVER]})
    reason = f"{secrets.token_hex(8)} the patient's ward is closed " * 80
    pair = await make_pair(
        Script(steps=(Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),)), Step(text="done")))
    )
    audit = pair.start_audit()
    service = pair.start_gateway(
        GATEWAY_TOKENS_FILE=str(listed.path), GATEWAY_TOOLS="read=ask", GATEWAY_METRICS_LISTEN="127.0.0.1:0"
    )
    gateway, approvals = await pair.gateway(service), await pair.approvals(service)
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go"), metadata=listed.shown_by("ada"))
    async for event in turn:
        if event.HasField("turn_accepted"):
            session_id = event.turn_accepted.session_id
        if event.HasField("tool_call_started"):
            call_id = event.tool_call_started.tool_call_id
            deny = approvals_pb2.AnswerToolCallRequest(
                tool_call_id=call_id, verdict=common_pb2.VERDICT_DENIED, reason=reason
            )
            await approvals.AnswerToolCall(deny, metadata=listed.shown_by("bob"))
    told = [m["content"] for m in pair.model.requests[-1].json["messages"] if m["role"] == "tool"]
    assert told == [f"Error: The call was refused. {reason}".strip()]
    [row] = await pair.rows(1)
    assert (row.outcome, row.error) == (common_pb2.OUTCOME_DENIED, "The call was refused.")
    assert (row.principal, row.decision.decided_by) == ("ada", "bob")
    assert "the patient's ward is closed" in row.decision.reason
    assert len(row.decision.reason.encode()) <= 256
    metrics = (await asyncio.to_thread(scrape, service)).text
    assert await asyncio.to_thread(service.terminate) == 0
    [line] = lines_of(service, "tool_call.answered")
    assert (line["tool_call_id"], line["answered_by"], line["allowed"]) == (call_id, "bob", False)
    word = reason[:16]
    assert conversation_name(session_id, "ada") in files_with(pair.state_dir, word)
    assert word not in metrics
    assert word not in service.stderr_text() + audit.stderr_text()


@pytest.mark.parametrize(("engine", "api"), ENGINES)
async def test_the_name_of_a_tool_that_a_model_invents_is_told_by_its_length(make_pair, engine, api):
    """Of each engine, in the turn and in its shadow: rows, spans, metrics and the log say `unknown`."""
    word = f"w{secrets.token_hex(8)}"
    name = f"the_patient_{word}_has_a_fever"
    invented = Call(name=name, arguments={f"she_{word}": 1, "b": word})
    known = Call(name="read", arguments={"path": "notes.txt"})
    pair = await make_pair(Script(steps=(Step(tool_calls=(invented, known)), Step(text="done"))))
    audit = pair.start_audit(AUDIT_LOG_LEVEL="debug")
    async with collecting() as collector:
        service = pair.start_gateway(
            GATEWAY_LOG_LEVEL="debug",
            GATEWAY_OPENAI_API=api,
            GATEWAY_METRICS_LISTEN="127.0.0.1:0",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}",
        )
        settings = pb.SessionSettings(shadows=[pb.EngineChoice(engine="openai" if engine == "ollama" else "ollama")])
        events = await run_turn(await pair.gateway(service), engine=engine, new_session=settings)
        rows = await pair.rows(4)
        metrics = (await asyncio.to_thread(scrape, service)).text
        assert await asyncio.to_thread(service.terminate) == 0
        spans = {span.name for span in collector.spans}
        assert spans >= {"execute_tool unknown", "execute_tool read"}
        assert {attributes(s)["gen_ai.tool.name"] for s in collector.spans if s.name == "execute_tool unknown"} == {
            "unknown"
        }
        assert word.encode() not in collector.raw()
    assert sorted((row.tool_name, row.shadow) for row in rows) == [
        *(("read", False), ("read", True), ("unknown", False), ("unknown", True))
    ]
    for row in rows:
        if row.tool_name == "unknown":
            assert json.loads(row.args_summary) == {"$tool": {"type": "string", "bytes": len(name)}, "$more": 2}
            assert row.outcome == common_pb2.OUTCOME_INVALID_CALL
    assert word not in metrics
    assert 'tool="unknown"' in metrics
    assert word not in service.stderr_text() + audit.stderr_text()
    assert files_with(pair.db.parent, word) == []
    assert files_with(pair.state_dir, word) == [conversation_name(events[0].turn_accepted.session_id)]


async def test_the_name_of_an_argument_that_a_model_invents_is_counted(make_pair, tmp_path):
    """Of an own tool and of a server's, which takes any; what they were offered with is shown by its type and size."""
    calls = (
        Call(name="read", arguments={"path": "notes.txt", "the_patient_sleeps_badly": 1}),
        Call(name="t.echo", arguments={"text": "abc", "the_patient_sleeps_badly": 1}),
    )
    pair = await make_pair(Script(steps=(Step(tool_calls=calls), Step(text="done"))))
    pair.start_audit()
    await run_turn(await pair.gateway(pair.start_gateway(**mcp_file(tmp_path))))
    summaries = {row.tool_name: json.loads(row.args_summary) for row in await pair.rows(2)}
    assert summaries == {
        "read": {"path": "notes.txt", "$more": 1},
        "t.echo": {"text": {"type": "string", "bytes": 3}, "$more": 1},
    }
    assert files_with(pair.db.parent, "sleeps_badly") == []


@asynccontextmanager
async def refusing(words: str):
    """A collector that refuses all spans with these words; yields its address."""

    class Refusing(trace_service_pb2_grpc.TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the proto
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, words)

    server = grpc.aio.server()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(Refusing(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


async def test_a_collectors_words_are_not_logged(make_pair):
    """That it refused, and by which status, is."""
    words = f"{secrets.token_hex(8)}: the last span was about a patient"
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    async with refusing(words) as address:
        service = pair.start_gateway(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}", OTEL_BSP_SCHEDULE_DELAY="50")
        await run_turn(await pair.gateway(service))
        async with asyncio.timeout(30):
            while "Failed to export" not in service.stderr_text():
                await asyncio.sleep(0.02)
    assert "PERMISSION_DENIED" in service.stderr_text()
    assert words not in service.stderr_text()
