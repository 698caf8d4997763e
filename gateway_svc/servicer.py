"""The gateway's services: requests in, events out. What is decided here is which status belongs to which error."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import grpc
from google.rpc import status_pb2
from onrecord.gateway.v1 import approvals_pb2, control_pb2, gateway_pb2, gateway_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc import errors
from gateway_svc.conversations.said import Place, entry_of
from gateway_svc.programs import NO_JAIL
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.sessions import Sessions
from gateway_svc.turns.turn import Runner
from service_kit.access.callers import current_caller
from service_kit.access.roles import Role
from service_kit.errors import ErrorStatuses
from service_kit.paging import InvalidPage, decode_token, encode_token, page_size
from service_kit.time_slice import TimeSlice

STATUSES: Mapping[type[Exception], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidPage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.DigestMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PolicyChanged: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EventsGone: grpc.StatusCode.OUT_OF_RANGE,
    errors.Interrupted: grpc.StatusCode.ABORTED,
    errors.Busy: grpc.StatusCode.ABORTED,
    errors.EngineNotConfigured: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Stopped: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BudgetUnknown: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DiskFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.LeaseLost: grpc.StatusCode.ABORTED,
    errors.Damaged: grpc.StatusCode.DATA_LOSS,
    errors.KeyMissing: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.EngineUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.EngineRateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.EngineRejected: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EngineProtocolError: grpc.StatusCode.INTERNAL,
}
RETRY_AFTER_SECONDS: Mapping[type[Exception], float] = {
    errors.Busy: 1.0,
    errors.StoreUnavailable: 1.0,
    errors.DiskFull: 5.0,
    errors.Overloaded: 1.0,
    errors.ShuttingDown: 1.0,
    errors.EngineRateLimited: 5.0,
}
_ERRORS = ErrorStatuses(STATUSES, RETRY_AFTER_SECONDS)

GATEWAY = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name
APPROVALS = approvals_pb2.DESCRIPTOR.services_by_name["ApprovalService"].full_name
CONTROL = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name

_CALLERS, _CALLERS_AND_ADMINS = frozenset({Role.CALLER}), frozenset({Role.CALLER, Role.ADMIN})
_APPROVERS, _ADMINS = frozenset({Role.CALLER, Role.APPROVER}), frozenset({Role.ADMIN})
ROLES: Mapping[str, Mapping[str, frozenset[Role]]] = {
    GATEWAY: {
        "RunTurn": _CALLERS,
        "AttachTurn": _CALLERS,
        "CancelTurn": _CALLERS_AND_ADMINS,
        "CreateSession": _CALLERS,
        "UpdateSession": _CALLERS,
        "GetSession": _CALLERS_AND_ADMINS,
        "ListSessions": _CALLERS_AND_ADMINS,
        "DeleteSession": _CALLERS_AND_ADMINS,
        "GetTranscript": _CALLERS,
        "ListEngines": _CALLERS_AND_ADMINS,
    },
    APPROVALS: {
        "AnswerToolCall": _APPROVERS,
        "ListPendingToolCalls": _APPROVERS | {Role.ADMIN},
        "WatchPendingToolCalls": _APPROVERS | {Role.ADMIN},
    },
    CONTROL: {"StopAgents": _ADMINS, "Resume": _ADMINS, "ListStops": _ADMINS | {Role.READER}},
}
"""Who may call what, by service; docs/security.md has it as a table."""

Context = grpc.aio.ServicerContext[Any, Any]


def status_of(error: BaseException) -> status_pb2.Status:
    """What the client of a turn is told of the error that the turn failed with."""
    return _ERRORS.of(error, f"/{GATEWAY}/RunTurn")


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """Sessions and turns; the proto says what each RPC does and how it fails."""

    def __init__(self, turns: Turns, sessions: Sessions, runners: Mapping[str, Runner], default_engine: str) -> None:
        self._turns = turns
        self._sessions = sessions
        self._runners = runners
        self._default_engine = default_engine

    async def RunTurn(self, request: pb.RunTurnRequest, context: Context) -> AsyncGenerator[pb.TurnEvent, None]:  # noqa: N802 - the names of RPCs are the proto's
        """Streams a turn, a new one or the one that an equal request began."""
        async with aclosing(self._turns.run(request, _viewer(), owner_of_call())) as events:
            async for event in events:
                yield event

    async def AttachTurn(self, request: pb.AttachTurnRequest, context: Context) -> AsyncGenerator[pb.TurnEvent, None]:  # noqa: N802
        """Streams the events of a turn that runs or has ended."""
        async with aclosing(self._turns.attach(request, _viewer())) as events:
            async for event in events:
                yield event

    async def attach_to_gone(self, request: pb.AttachTurnRequest) -> list[pb.TurnEvent] | None:
        """See Turns.attach_to_gone(), for who calls."""
        return await self._turns.attach_to_gone(request, _viewer())

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Context) -> pb.CancelTurnResponse:  # noqa: N802
        """Cancels a turn."""
        return pb.CancelTurnResponse(turn_id=self._turns.cancel(request, _viewer()))

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:  # noqa: N802
        """Makes a session."""
        state = await self._turns.sessions.create(request.settings, owner_of_call())
        return pb.CreateSessionResponse(session=state.to_message())

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: Context) -> pb.UpdateSessionResponse:  # noqa: N802
        """Changes a session's settings."""
        return pb.UpdateSessionResponse(session=(await self._turns.sessions.update(request, _viewer())).to_message())

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:  # noqa: N802
        """Returns a session."""
        state = await self._sessions.get(request.session_id, _viewer())
        return pb.GetSessionResponse(session=state.to_message())

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:  # noqa: N802
        """Lists sessions."""
        size = page_size(request.page_size)
        before = str(decode_token(request.page_token, b"sessions", (str,))[0]) if request.page_token else None
        page, sessions, time_slice = await self._sessions.list_page(size, before, _viewer()), [], TimeSlice()
        for state in page.states:
            sessions.append(state.to_message())
            if time_slice.is_over():
                await time_slice.give_way()
        token = encode_token((page.states[-1].id,), b"sessions") if page.has_more else ""
        return pb.ListSessionsResponse(sessions=sessions, next_page_token=token)

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:  # noqa: N802
        """Removes a session."""
        await self._turns.sessions.delete(request.session_id, _viewer())
        return pb.DeleteSessionResponse()

    async def GetTranscript(self, request: pb.GetTranscriptRequest, context: Context) -> pb.GetTranscriptResponse:  # noqa: N802
        """Returns a page of what was said in a session, to its own caller, and to no admin."""
        fingerprint = b"transcript" + request.session_id.encode()
        token = request.page_token
        number, at = decode_token(token, fingerprint, (int, int)) if token else (0, 0)
        size = page_size(request.page_size)
        page = await self._sessions.read_said(request.session_id, owner_of_call(), Place(int(number), int(at)), size)
        return pb.GetTranscriptResponse(
            entries=[entry_of(said) for said in page.said],
            next_page_token=encode_token(page.next, fingerprint) if page.next else "",
        )

    async def ListEngines(self, request: pb.ListEnginesRequest, context: Context) -> pb.ListEnginesResponse:  # noqa: N802
        """Lists the configured engines, the default first."""
        names = sorted(self._runners, key=lambda name: (name != self._default_engine, name))
        return pb.ListEnginesResponse(
            engines=[
                pb.Engine(
                    name=name,
                    default_model=self._runners[name].default_model,
                    is_default=name == self._default_engine,
                    unconfined=self._runners[name].jail == NO_JAIL,
                    jail=self._runners[name].jail,
                )
                for name in names
            ]
        )


def owner_of_call() -> str:
    """Whose the sessions and requests of a call are, whatever else its caller may see; empty without a list."""
    caller = current_caller()
    return caller.name if caller else ""


def _viewer() -> str | None:
    """Whose sessions a call sees; None: all."""
    caller = current_caller()
    return None if caller is None or Role.ADMIN in caller.roles else caller.name
