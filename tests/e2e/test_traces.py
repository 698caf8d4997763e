"""Traces of real turns, received by a real collector."""

import asyncio

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from opentelemetry.proto.trace.v1 import trace_pb2

from demo.script import Call, Refusal, Script, Step, Tokens
from tests.e2e.conftest import error_of, run_turn
from tests.support.collector import attributes, collecting

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")
SECRET = "the secret of the file"

WORK = Script(
    steps=(
        Step(
            tool_calls=(
                Call(name="read", arguments={"path": "notes.txt"}, id="call_1"),
                Call(name="read", arguments={"path": "missing.txt"}, id="call_2"),
            ),
            tokens=Tokens(input=100, output=20, cached=7, reasoning=5),
        ),
        Step(text=SECRET, tokens=Tokens(input=200, output=30)),
    )
)
ERROR = trace_pb2.Status.STATUS_CODE_ERROR


@pytest.mark.long
async def test_a_turn_is_a_trace_by_the_conventions_that_goes_on_from_the_callers(make_pair):
    """A span for each turn, request and tool call, below the caller's; rows carry the trace's id; no content."""
    pair = await make_pair(WORK)
    (pair.workspace / "notes.txt").write_text(SECRET)
    pair.start_audit()
    async with collecting() as collector:
        service = pair.start_gateway(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}", OTEL_SERVICE_NAME="mine"
        )
        gateway = await pair.gateway(service)
        request = pb.RunTurnRequest(input=f"Read {SECRET}", engine="openai")
        events = [event async for event in gateway.RunTurn(request, metadata=(TRACEPARENT, ("tracestate", "a=b")))]
        rows = await pair.rows(2)
        assert await asyncio.to_thread(service.terminate) == 0

        spans = {span.name: span for span in collector.spans if span.name != "execute_tool read"}
        tools = [span for span in collector.spans if span.name == "execute_tool read"]
        assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
        assert set(spans) == {"invoke_agent", "chat scripted"}
        assert len(collector.spans) == 5

        turn, accepted = spans["invoke_agent"], events[0].turn_accepted
        about = attributes(turn)
        assert (turn.parent_span_id.hex(), turn.trace_state) == (PARENT_ID, "a=b")
        assert about["gen_ai.operation.name"] == "invoke_agent"
        assert about["gen_ai.provider.name"] == "openai"
        assert about["gen_ai.request.model"] == "scripted"
        assert about["gen_ai.conversation.id"] == accepted.session_id
        assert about["onrecord.turn.id"] == accepted.turn_id
        assert about["onrecord.stop_reason"] == "completed"
        assert (about["gen_ai.usage.input_tokens"], about["gen_ai.usage.output_tokens"]) == (300, 50)

        first = min((s for s in collector.spans if s.name == "chat scripted"), key=lambda s: s.start_time_unix_nano)
        about = attributes(first)
        assert first.kind == trace_pb2.Span.SPAN_KIND_CLIENT
        assert (about["gen_ai.operation.name"], about["gen_ai.response.model"]) == ("chat", "scripted")
        assert (about["gen_ai.usage.input_tokens"], about["gen_ai.usage.output_tokens"]) == (100, 20)
        assert about["gen_ai.usage.cache_read.input_tokens"] == 7
        assert about["gen_ai.usage.reasoning.output_tokens"] == 5
        assert "error.type" not in about

        by_call = {attributes(span)["gen_ai.tool.call.id"]: span for span in tools}
        assert set(by_call) == {"call_1", "call_2"}
        assert attributes(by_call["call_1"])["gen_ai.operation.name"] == "execute_tool"
        assert attributes(by_call["call_1"])["gen_ai.tool.name"] == "read"
        assert by_call["call_1"].status.code != ERROR
        assert (attributes(by_call["call_2"])["error.type"], by_call["call_2"].status.code) == ("failed", ERROR)
        assert {attributes(span)["onrecord.audit_row.id"] for span in tools} == {row.id for row in rows}
        for span in (*tools, first):
            assert span.parent_span_id == turn.span_id
            assert turn.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano

        assert {row.trace_id for row in rows} == {TRACE_ID}
        assert pair.query("SELECT DISTINCT trace_id FROM cost_log") == [(TRACE_ID,)]
        assert b"mine" in collector.raw()
        assert SECRET.encode() not in collector.raw()


@pytest.mark.long
async def test_a_turn_without_a_callers_trace_begins_its_own(make_pair):
    """Two turns are two traces, each of which is on its rows; what fails says with which class of error."""
    refused = Script(
        steps=(Step(tool_calls=(Call(name="glob", arguments={"pattern": "*"}),)), Step(refuse=Refusal(status=400)))
    )
    pair = await make_pair(refused)
    pair.start_audit()
    async with collecting() as collector:
        service = pair.start_gateway(
            GATEWAY_TRACES="on", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://{collector.address}"
        )
        gateway = await pair.gateway(service)
        for _ in range(2):
            error_of(await run_turn(gateway, engine="ollama"))
        rows = await pair.rows(2)
        assert await asyncio.to_thread(service.terminate) == 0
    assert {span.trace_id.hex() for span in collector.spans} == {row.trace_id for row in rows}
    assert len({row.trace_id for row in rows}) == 2
    failed = [span for span in collector.spans if span.status.code == ERROR]
    assert {(span.name, attributes(span)["error.type"]) for span in failed} == {
        ("invoke_agent", "EngineRejected"),
        ("chat scripted", "EngineRejected"),
    }
    assert {attributes(span)["gen_ai.provider.name"] for span in collector.spans} == {"ollama"}


@pytest.mark.long
async def test_without_traces_the_callers_trace_is_on_the_rows_all_the_same(make_pair):
    pair = await make_pair(WORK)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    [event async for event in gateway.RunTurn(pb.RunTurnRequest(input="go"), metadata=(TRACEPARENT,))]
    await run_turn(gateway)
    rows = await pair.rows(4)
    assert [row.trace_id for row in rows] == [TRACE_ID, TRACE_ID, "", ""]


@pytest.mark.long
async def test_a_collector_that_does_not_answer_delays_neither_turns_nor_the_end(make_pair):
    """The address leads nowhere: the turn is as it is, and SIGTERM ends the gateway with exit code 0."""
    pair = await make_pair(WORK)
    pair.start_audit()
    service = pair.start_gateway(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    events = await run_turn(await pair.gateway(service), engine="openai")
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert await asyncio.to_thread(service.terminate) == 0
