"""Limits of the gateway as its clients meet them."""

import asyncio
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import administration_pb2, administration_pb2_grpc, audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from recording.row_version import ROW_VERSION
from tests.e2e.conftest import kinds, run_turn

SLEEPS = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "sleep 60"}),)), Step(text="done")))


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The details of a status by the names of their types."""
    status = rpc_status.from_call(cast(Any, error))
    assert status is not None
    known = {
        kind.DESCRIPTOR.full_name: kind
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    }
    found = {}
    for detail in status.details:
        kind = known[detail.TypeName()]
        found[kind.DESCRIPTOR.name] = kind.FromString(detail.value)
    return found


@pytest.mark.long
async def test_a_clients_deadline_cancels_the_turn_and_its_tool_whose_row_is_there(make_pair):
    pair = await make_pair(SLEEPS)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    call = gateway.RunTurn(pb.RunTurnRequest(input="go"), timeout=10)
    events: list[pb.TurnEvent] = []

    async def read() -> None:
        async for event in call:
            events.append(event)

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await read()
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert kinds(events)[-1] == "tool_call_started"
    (row,) = await pair.rows(1)
    assert row.outcome == common_pb2.OUTCOME_CANCELLED
    assert row.duration_ms < 30_000
    get = pb.GetSessionRequest(session_id=row.session_id)
    async with asyncio.timeout(30):
        while (await gateway.GetSession(get)).session.status != common_pb2.SESSION_STATUS_CANCELLED:
            await asyncio.sleep(0.02)


@pytest.mark.long
async def test_turns_beyond_the_queue_are_told_when_to_come_again(make_pair):
    pair = await make_pair(SLEEPS)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_MAX_TURNS="1", GATEWAY_MAX_QUEUED_TURNS="1"))
    turns = [gateway.RunTurn(pb.RunTurnRequest(input="go")) for _ in range(3)]
    reads = {asyncio.ensure_future(turn.read()) for turn in turns}
    done, waiting = await asyncio.wait(reads, return_when=asyncio.FIRST_EXCEPTION)
    (refused,) = [read.exception() for read in done if read.exception()]
    assert isinstance(refused, grpc.aio.AioRpcError)
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = details_of(refused)
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == ("OVERLOADED", "onrecord.dev")
    assert (wait := details["RetryInfo"].retry_delay.ToMilliseconds()) > 0
    trailers = dict(cast(Any, refused.trailing_metadata()))
    assert trailers["grpc-retry-pushback-ms"] == str(wait), "the same for gRPC's own retries"
    for turn in turns:
        turn.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.long
async def test_the_field_that_is_at_fault_is_named(make_pair):
    pair = await make_pair(SLEEPS)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    audit, questions = await pair.audit(), await pair.questions()
    care = administration_pb2_grpc.AdministrationServiceStub(await pair.channel(pair.audit_address))
    too_long = audit_pb2.SequenceRange(producer_id="x" * 129, first=1, last=1)
    for call, field in (
        (run_turn(gateway, input=" "), "input"),
        (run_turn(gateway, max_steps=-1), "max_steps"),
        (run_turn(gateway, new_session=pb.SessionSettings(labels={"": "x"})), "new_session.labels"),
        (gateway.ListSessions(pb.ListSessionsRequest(page_size=-1)), "page_size"),
        (run_turn(gateway, max_cost_micros=-1), "max_cost_micros"),
        (
            run_turn(gateway, new_session=pb.SessionSettings(max_cost_micros=-1)),
            "new_session.max_cost_micros",
        ),
        (questions.ListToolCalls(questions_pb2.ListToolCallsRequest(page_token="x")), "page_token"),
        (care.Prune(administration_pb2.PruneRequest()).read(), "created_before_ms"),
        (care.Prune(administration_pb2.PruneRequest(created_before_ms=2**62)).read(), "created_before_ms"),
        (
            audit.RecordBatch(
                audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=[audit_pb2.AuditRow()] * 10_001)
            ),
            "tool_calls",
        ),
        (questions.GetSessionRecord(questions_pb2.GetSessionRecordRequest()), "session.id"),
        (audit.RecordBatch(audit_pb2.RecordRequest(row_version=ROW_VERSION, range=too_long)), "range.producer_id"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        (violation,) = details_of(refused.value)["BadRequest"].field_violations
        assert (refused.value.code(), violation.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
