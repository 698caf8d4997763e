"""What callers are answered over gRPC, where the request says too little or what it names is not there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import chain
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2, approvals_pb2_grpc, gateway_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc import approvals
from gateway_svc.approvals import ApprovalServicer
from gateway_svc.loop.answers import Answers
from gateway_svc.servicer import RETRY_AFTER_SECONDS, STATUSES, GatewayServicer
from gateway_svc.turns import events
from service_kit.errors import ErrorInterceptor
from service_kit.server import build_server
from tests.gateway_svc.scripted_turns import House, Runner
from tests.support.grpc_server import started
from tests.support.pages import pages_of


@asynccontextmanager
async def serving(house: House, answers: Answers) -> AsyncIterator[grpc.aio.Channel]:
    server = build_server([ErrorInterceptor(STATUSES, RETRY_AFTER_SECONDS)])
    gateway = GatewayServicer(house.turns, house.sessions, {}, "one")
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(gateway, server)
    approvals_pb2_grpc.add_ApprovalServiceServicer_to_server(ApprovalServicer(answers), server)
    async with started(server) as address, grpc.aio.insecure_channel(address) as channel:
        yield channel


async def refused(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """The status of a call, its reason, and the field at fault."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type] # it has what a call has
    assert status is not None
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    detail: AnyMessage
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(violations)
    fields = [violation.field for violation in violations.field_violations]
    return raised.value.code(), info.reason, fields[0] if fields else ""


async def test_a_call_runs_only_when_the_verdict_says_that_it_may(tmp_path):
    """One that says nothing, or what this gateway does not know, is refused, and the call waits on."""
    answers = Answers(60)
    async with serving(House(tmp_path, Runner()), answers) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        with answers.expect(audit_pb2.AuditRow(id="call-1"), "") as pending:
            for verdict in (common_pb2.VERDICT_UNSPECIFIED, 99):
                request = approvals_pb2.AnswerToolCallRequest(tool_call_id="call-1", verdict=verdict)  # type: ignore[arg-type] # of a newer client
                assert await refused(stub.AnswerToolCall(request)) == (
                    *(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "verdict"),
                )
            request = approvals_pb2.AnswerToolCallRequest(tool_call_id="call-1", verdict=common_pb2.VERDICT_ALLOWED)
            request.reason = "r" * 4097
            assert (await refused(stub.AnswerToolCall(request)))[2] == "reason"
            assert answers.waiting == [pending]
        for verdict, allow in ((common_pb2.VERDICT_DENIED, False), (common_pb2.VERDICT_ALLOWED, True)):
            call_id = f"call-{verdict}"
            with answers.expect(audit_pb2.AuditRow(id=call_id), "") as pending:
                request = approvals_pb2.AnswerToolCallRequest(tool_call_id=call_id, verdict=verdict, reason="so")
                await stub.AnswerToolCall(request)
                answer = await pending.answer()
            assert answer is not None
            assert (answer.allow, answer.reason) == (allow, "so")


async def test_what_is_not_named_is_a_bad_request_and_what_is_not_there_is_not_found(tmp_path):
    async with serving(House(tmp_path, Runner()), Answers(60)) as channel:
        gateway: gateway_pb2_grpc.GatewayServiceAsyncStub = gateway_pb2_grpc.GatewayServiceStub(channel)
        approvals: approvals_pb2_grpc.ApprovalServiceAsyncStub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        allowed, unlabelled = common_pb2.VERDICT_ALLOWED, pb.SessionSettings(labels={"": "v"})
        for call, field in (
            (gateway.GetSession(pb.GetSessionRequest()), "session_id"),
            (gateway.RunTurn(pb.RunTurnRequest(input="hi", session_id="")).read(), "session_id"),
            (gateway.CancelTurn(pb.CancelTurnRequest(turn_id="")), "turn_id"),
            (gateway.CancelTurn(pb.CancelTurnRequest(session_id="")), "session_id"),
            (gateway.CancelTurn(pb.CancelTurnRequest()), "target"),
            (approvals.AnswerToolCall(approvals_pb2.AnswerToolCallRequest(verdict=allowed)), "tool_call_id"),
            (gateway.CreateSession(pb.CreateSessionRequest(settings=unlabelled)), "settings.labels"),
        ):
            assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", field)
        unknown = approvals_pb2.AnswerToolCallRequest(tool_call_id="nobody", verdict=allowed)
        for call in (
            gateway.GetSession(pb.GetSessionRequest(session_id="nobody")),
            gateway.RunTurn(pb.RunTurnRequest(input="hi", session_id="nobody")).read(),
            gateway.CancelTurn(pb.CancelTurnRequest(turn_id="nobody")),
            approvals.AnswerToolCall(unknown),
        ):
            assert await refused(call) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "")


async def test_the_first_event_names_the_turn_before_it_has_its_session(tmp_path):
    """So that it can be cancelled while it waits."""
    hold = asyncio.Event()

    async def work(_turn: object) -> None:
        await hold.wait()

    house = House(tmp_path, Runner(work=work))
    async with serving(house, Answers(60)) as channel:
        stub: gateway_pb2_grpc.GatewayServiceAsyncStub = gateway_pb2_grpc.GatewayServiceStub(channel)
        first = aiter(stub.RunTurn(pb.RunTurnRequest(input="one")))
        session_id = (await anext(first)).turn_accepted.session_id
        second = aiter(stub.RunTurn(pb.RunTurnRequest(input="two", session_id=session_id)))
        accepted = await anext(second)
        assert (accepted.sequence, accepted.step) == (1, 0)
        turn_id = accepted.turn_accepted.turn_id
        cancelled = await stub.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id))
        assert cancelled.turn_id == turn_id
        finished = await anext(second)
        assert finished.turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
        hold.set()
        assert [event.WhichOneof("event") async for event in first] == ["turn_started", "text_delta", "turn_finished"]


async def test_what_waits_is_listed_and_watched_in_messages_that_clients_accept(tmp_path):
    answers, ids = Answers(60), [f"call-{number:04d}" for number in range(1000)]
    async with serving(House(tmp_path, Runner()), answers) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        with ExitStack() as stack:
            for call_id in ids:
                row = audit_pb2.AuditRow(id=call_id, args_summary="x" * 4096, model="\U0001f600" * 256)
                stack.enter_context(answers.expect(row, ""))
            asked = pages_of(stub.ListPendingToolCalls, approvals_pb2.ListPendingToolCallsRequest(page_size=1000))
            listed = [call.tool_call_id async for page in asked for call in page.tool_calls]
            watch: Any = stub.WatchPendingToolCalls(approvals_pb2.WatchPendingToolCallsRequest())
            watched: list[str] = []
            while len(watched) < len(ids):
                watched += [call.tool_call_id for call in (await watch.read()).added]
            watch.cancel()
    assert listed == sorted(ids)
    assert watched == ids


async def test_every_stream_gives_signs_of_life_while_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(approvals, "ALIVE_SECONDS", 0.01)
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.01)
    hold = asyncio.Event()

    async def work(_turn: object) -> None:
        await hold.wait()

    async with serving(House(tmp_path, Runner(work=work)), Answers(60)) as channel, asyncio.timeout(30):
        turns = gateway_pb2_grpc.GatewayServiceStub(channel)
        running: Any = turns.RunTurn(pb.RunTurnRequest(input="one"))
        attached = pb.AttachTurnRequest(turn_id=(await running.read()).turn_accepted.turn_id)
        watch = approvals_pb2.WatchPendingToolCallsRequest()
        streams: dict[str, Any] = {
            "RunTurn": running,
            "AttachTurn": turns.AttachTurn(attached),
            "WatchPendingToolCalls": approvals_pb2_grpc.ApprovalServiceStub(channel).WatchPendingToolCalls(watch),
        }
        services = [file.DESCRIPTOR.services_by_name.values() for file in (pb, approvals_pb2)]
        methods = [method for service in chain(*services) for method in service.methods if method.server_streaming]
        assert streams.keys() == {method.name for method in methods}
        for name, stream in streams.items():
            silent = 0
            while silent < 3:
                said = await stream.read()
                silent += said.HasField("heartbeat") if name != "WatchPendingToolCalls" else not said.ListFields()
        hold.set()
