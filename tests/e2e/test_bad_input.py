"""Bad input gets the right status and a sentence, and both services go on."""

import itertools
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Refusal, Script, Step
from recording.rows import ROW_VERSION
from tests.e2e.conftest import error_of, run_turn, text_of

C = grpc.StatusCode


def audit_row(id_: str, *, tool_name: str = "read", created_at_ms: int = 1_790_000_000_000) -> audit_pb2.AuditRow:
    return audit_pb2.AuditRow(
        id=id_,
        tool_name=tool_name,
        args_summary="{}",
        created_at_ms=created_at_ms,
        outcome=common_pb2.OUTCOME_SUCCEEDED,
    )


def batch(rows: list[audit_pb2.AuditRow]) -> audit_pb2.RecordRequest:
    covered = audit_pb2.SequenceRange(producer_id="p", first=1, last=1)
    return audit_pb2.RecordRequest(range=covered, row_version=ROW_VERSION, tool_calls=rows)


async def status_of(call) -> tuple[grpc.StatusCode, str]:
    """Why a call was refused, or why a turn that was accepted failed."""
    try:
        error = error_of(await call)
    except grpc.aio.AioRpcError as refused:
        return refused.code(), refused.details() or ""
    return next(code for code in grpc.StatusCode if code.value[0] == error.code), error.message


@pytest.mark.long
async def test_each_bad_turn_is_told_and_a_good_one_follows(make_pair):
    pair = await make_pair(Script(steps=(Step(text="fine"),), models=("scripted",)))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_OPENAI_URL="http://127.0.0.1:1/v1"))
    cases: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
        ({"engine": "nine"}, C.FAILED_PRECONDITION, "nine"),
        ({"engine": "claude"}, C.FAILED_PRECONDITION, "claude"),
        ({"model": "no-such-model"}, C.NOT_FOUND, "no-such-model"),
        ({"engine": "openai"}, C.UNAVAILABLE, "openai"),
        ({"session_id": "no-such-session"}, C.NOT_FOUND, "no-such-session"),
        ({"session_id": "../x"}, C.NOT_FOUND, "session_id"),
        ({"input": ""}, C.INVALID_ARGUMENT, "input"),
        ({"input": "x" * (17 * 2**20)}, C.RESOURCE_EXHAUSTED, "message"),
        ({"max_steps": -1}, C.INVALID_ARGUMENT, "max_steps"),
    ]
    for request, code, named in cases:
        got, sentence = await status_of(run_turn(gateway, **request))
        assert got == code, (request if len(str(request)) < 200 else "...", sentence)
        assert named in sentence
    assert text_of(await run_turn(gateway)) == "fine"


@pytest.mark.long
async def test_a_model_server_that_fails_is_told_by_engine_and_model(make_pair):
    pair = await make_pair(Script())
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    failures = (
        (Step(refuse=Refusal(status=401, message="no")), C.FAILED_PRECONDITION),
        (Step(refuse=Refusal(status=400, message="no")), C.FAILED_PRECONDITION),
        (Step(text="some text here", error_after=1), C.INTERNAL),
        (Step(text="some text here", cut_after=1), C.INTERNAL),
    )
    turns = list(itertools.product(("ollama", "openai"), failures))
    for engine, (step, code) in turns:
        pair.model.script = Script(steps=(step,))
        got, sentence = await status_of(run_turn(gateway, engine=engine))
        assert got in (code, C.UNAVAILABLE), sentence
        assert engine in sentence
        assert "scripted" in sentence
    await pair.costs(len(turns))
    assert pair.query("SELECT count(*) FROM cost_log WHERE error != '' AND usage_incomplete") == [(len(turns),)]
    await pair.until("SELECT status FROM sessions", [("failed",)] * len(turns))


@pytest.mark.long
async def test_a_server_that_was_busy_at_first_is_asked_again(make_pair):
    step = Step(text="fine", refuse=Refusal(status=503, message="busy", times=1))
    pair = await make_pair(Script(steps=(step,)))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    assert text_of(await run_turn(gateway)) == "fine"


@pytest.mark.long
async def test_bad_pages_are_refused_by_both_services(make_pair):
    pair = await make_pair(Script())
    pair.start_audit()
    gateway, questions = await pair.gateway(pair.start_gateway()), await pair.questions()
    for call, request in (
        (gateway.ListSessions, pb.ListSessionsRequest),
        (questions.ListToolCalls, questions_pb2.ListToolCallsRequest),
        (questions.ListSessionRecords, questions_pb2.ListSessionRecordsRequest),
    ):
        assert (await status_of(call(request(page_size=-1))))[0] == C.INVALID_ARGUMENT
        assert (await status_of(call(request(page_token="forged"))))[0] == C.INVALID_ARGUMENT
        await call(request(page_size=10**6))


@pytest.mark.long
async def test_rows_that_cannot_be_stored_are_rejected_and_their_neighbours_stored(make_pair):
    pair = await make_pair(Script())
    pair.start_audit()
    audit = await pair.audit()
    rows = [
        audit_row("a"),
        audit_row(""),
        audit_row("b", tool_name="x" * (3 * 2**20)),
        audit_row("c", created_at_ms=253_402_300_800_000),
        audit_row("d", created_at_ms=-5),
        audit_row("e"),
    ]
    response = await audit.RecordBatch(batch(rows))
    assert response.stored == 2
    told = [(rejection.index, rejection.id, rejection.field) for rejection in response.rejections]
    assert told == [(1, "", "id"), (2, "b", "tool_name"), (3, "c", "created_at_ms"), (4, "d", "created_at_ms")]
    assert all(rejection.kind == audit_pb2.ROW_KIND_TOOL_CALL for rejection in response.rejections)
    assert all(rejection.message for rejection in response.rejections)
    assert [row.session_id for row in await pair.rows(2)] == ["unknown", "unknown"]


@pytest.mark.long
async def test_a_record_stream_closed_in_the_middle_keeps_what_was_acked(make_pair):
    pair = await make_pair(Script())
    pair.start_audit()
    audit = await pair.audit()
    call = audit.Record()
    await call.write(batch([audit_row("a")]))
    assert (await call.read()).stored == 1
    call.cancel()
    assert [row.id for row in await pair.rows(1)] == ["a"]


@pytest.mark.long
async def test_a_tool_call_named_by_megabytes_still_has_its_row(make_pair):
    call = Call(name="x" * 2_000_000, arguments={"y" * 2_000_000: 1})
    pair = await make_pair(Script(steps=(Step(tool_calls=(call,)), Step(text="Done."))))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    assert text_of(await run_turn(gateway)) == "Done."
    [row] = await pair.rows(1)
    assert row.outcome == common_pb2.OUTCOME_INVALID_CALL


@pytest.mark.long
async def test_a_field_that_is_not_known_is_refused_everywhere_but_in_a_batch(make_pair):
    """What was passed over would be a filter or a limit; a batch says by its row_version what it has."""
    pair = await make_pair(Script(steps=(Step(text="fine"),)))
    pair.start_audit()
    service = pair.start_gateway()
    gateway, approvals = await pair.gateway(service), await pair.approvals(service)
    questions, audit = await pair.questions(), await pair.audit()

    def newer(request: Any) -> Any:
        return type(request).FromString(request.SerializeToString() + b"\xc2\x3e\x02hi")

    for call in (
        gateway.ListEngines(newer(pb.ListEnginesRequest())),
        gateway.RunTurn(newer(pb.RunTurnRequest(input="go"))).read(),
        approvals.AnswerToolCall(newer(approvals_pb2.AnswerToolCallRequest(tool_call_id="c"))),
        questions.ListToolCalls(newer(questions_pb2.ListToolCallsRequest())),
        questions.ExportToolCalls(newer(questions_pb2.ExportToolCallsRequest())).read(),
    ):
        code, sentence = await status_of(call)
        assert code == C.INVALID_ARGUMENT
        assert "field 1000 " in sentence
    assert not (await gateway.ListSessions(pb.ListSessionsRequest())).sessions
    assert (await audit.RecordBatch(newer(batch([audit_row("a")])))).stored == 1
