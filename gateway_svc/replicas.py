"""Gateways that share sessions: what one of them is asked, and another knows or does.

A turn, its session and the calls of its tools that wait are at the gateway that runs it. A call for them may come in at
any: it is passed on as the caller's own, and the answer comes back as it is.
"""

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status
from onrecord.gateway.v1 import approvals_pb2, control_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1.control_pb2 import StopAgentsResponse

from gateway_svc.approvals import ApprovalServicer, page_of
from gateway_svc.conversations.postgres.calls import WAIT_SECONDS, Answer, Call, Calls
from gateway_svc.conversations.postgres.streams import CLOSE, READ, Outgoing, StreamEnded, incoming
from gateway_svc.errors import Busy, NotFound, ShuttingDown
from gateway_svc.servicer import APPROVALS, CONTROL, GATEWAY, GatewayServicer, status_of
from gateway_svc.stopping.stops import END_SECONDS, Stops
from gateway_svc.workers.pending import watch_pending
from service_kit.access.callers import Caller, current_caller, enter
from service_kit.access.roles import Role
from service_kit.handlers import CallDetails, Context, Handler, HandlerInterceptor

CANCEL, UPDATE, RUN, ATTACH = (
    f"/{GATEWAY}/{name}" for name in ("CancelTurn", "UpdateSession", "RunTurn", "AttachTurn")
)
ANSWER, LIST, WATCH = (
    f"/{APPROVALS}/{name}" for name in ("AnswerToolCall", "ListPendingToolCalls", "WatchPendingToolCalls")
)
STOP, RESUME = f"/{CONTROL}/StopAgents", f"/{CONTROL}/Resume"
"""Between gateways: has a stop hold that another made, or lifts it."""
PASSED_ON = 10
"""How often a call follows what it is for from gateway to gateway."""

Local = Callable[[Any, Any], Any]
AttachToGone = Callable[[pb.AttachTurnRequest], Awaitable[list[pb.TurnEvent] | None]]
"""What is known here of a turn whose gateway is gone, for who calls; None if nothing is."""


class ReplicasInterceptor(HandlerInterceptor):
    """Passes on what other gateways know or do. It goes behind all other interceptors."""

    def __init__(self, calls: Calls, attach_to_gone: AttachToGone) -> None:
        self._calls = calls
        self._attach_to_gone = attach_to_gone

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Puts the question to the others behind the handler."""
        streams = handler.response_streaming
        local: Any = handler.unary_stream if streams else handler.unary_unary
        route = {
            CANCEL: self._cancel,
            UPDATE: self._update,
            ANSWER: self._first,
            LIST: self._list,
            RUN: self._run,
            ATTACH: self._attach,
            WATCH: self._watch,
        }.get(details.method)
        if route is None:
            return handler
        serialize: Any = handler.response_serializer
        make: Any = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        made: Handler = make(
            (_told_stream if streams else _told)(route(details.method, local)),
            request_deserializer=handler.request_deserializer,
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else serialize(answer),
        )
        return made

    def _first(self, method: str, local: Local) -> Local:
        """The answer of the first that knows what is meant."""

        async def first(request: Any, context: Context) -> Any:
            try:
                return await local(request, context)
            except NotFound as error:
                unknown = error
            return _response(_known(await self._calls.ask(_call(method, request), _knows), unknown))

        return first

    def _cancel(self, method: str, local: Local) -> Local:
        first, held = self._first(method, local), self._update(method, local)

        async def cancel(request: pb.CancelTurnRequest, context: Context) -> Any:
            if not request.session_id:
                try:
                    return await first(request, context)
                except NotFound:
                    if await self._attach_to_gone(pb.AttachTurnRequest(turn_id=request.turn_id)) is None:
                        raise
                    return pb.CancelTurnResponse(turn_id=request.turn_id)
            try:  # the turn that runs is meant, wherever one has ended
                return await held(request, context)
            except NotFound:
                return await first(request, context)

        return cancel

    def _update(self, method: str, local: Local) -> Local:
        """The answer of who holds the session."""

        async def update(request: Any, context: Context) -> Any:
            for attempt in range(PASSED_ON):
                holder = await self._calls.holder(request.session_id) if request.session_id else None
                try:
                    if holder is None:
                        return await local(request, context)
                    (answer,) = await self._calls.ask(_call(method, request), _any, to=holder)
                except (Busy, ShuttingDown):  # it is let go, or taken, just now
                    if attempt == PASSED_ON - 1:
                        raise
                    continue
                if not _is(answer, code_pb2.ABORTED):
                    return _response(answer)
            raise Busy(f"session {request.session_id[:64]} goes from one gateway to the next: try again")

        return update

    def _list(self, method: str, local: Local) -> Local:
        async def listed(request: Any, context: Context) -> Any:
            pages = [await local(request, context)]  # first, since it refuses what is wrong with the request
            answers = await self._calls.ask(_call(method, request), lambda answer: answer.response is None)
            page = approvals_pb2.ListPendingToolCallsResponse
            return page_of(request, pages + [page.FromString(_response(answer)) for answer in answers])

        return listed

    def _run(self, method: str, local: Local) -> Local:
        async def run(request: pb.RunTurnRequest, context: Context) -> AsyncGenerator[Any, None]:
            for _ in range(PASSED_ON):
                try:
                    async with aclosing(local(request, context)) as events:
                        async for event in events:
                            yield event
                    return
                except Busy as error:  # before any event
                    if error.gateway is None:
                        raise
                    busy = error
                try:
                    opened = await self._open(method, request, busy.gateway)
                except ShuttingDown:
                    continue  # it is gone, or going: what became of the request is known here, or it is free
                async with aclosing(incoming(self._calls, opened)) as parts:
                    async for part in parts:
                        yield part
                return
            raise busy

        return run

    def _attach(self, method: str, local: Local) -> Local:
        async def attach(request: pb.AttachTurnRequest, context: Context) -> AsyncGenerator[Any, None]:
            try:
                async with aclosing(local(request, context)) as events:
                    async for event in events:
                        yield event
                return
            except NotFound as error:  # before any event
                unknown = error
            answers = await self._calls.ask(_call(method, request), _knows)
            try:
                known = _known(answers, unknown)
            except NotFound:
                told = await self._attach_to_gone(request)
                if told is None:
                    raise
                for event in told:
                    yield event
                return
            _response(known)
            async with aclosing(incoming(self._calls, known)) as parts:
                async for part in parts:
                    yield part

        return attach

    def _watch(self, method: str, local: Local) -> Local:
        async def others() -> list[_Other]:
            return [_Other(number, self) for number in await self._calls.alive()]

        return watch_pending(others, method, local)

    async def _open(self, method: str, request: Any, gateway: int | None) -> Answer:
        """Opens a stream at a gateway.

        Raises:
            StreamEnded: it refused.
            ShuttingDown: it is gone.
        """
        (answer,) = await self._calls.ask(_call(method, request), _any, to=gateway)
        if _is(answer, code_pb2.UNAVAILABLE):
            raise ShuttingDown(f"gateway {gateway} of those that share sessions is shutting down: try again")
        _response(answer)
        return answer

    async def stream(self, method: str, request: Any, gateway: int) -> AsyncGenerator[bytes, None]:
        """The answers of a gateway to a call with many."""
        opened = await self._open(method, request, gateway)
        async with aclosing(incoming(self._calls, opened)) as parts:
            async for part in parts:
                yield part


@dataclass(frozen=True)
class _Other:
    """Another gateway, as pending.watch_pending() asks it."""

    number: int
    _asked: ReplicasInterceptor

    def stream(self, method: str, request: Any) -> AsyncGenerator[bytes, None]:
        return self._asked.stream(method, request, self.number)


class Replicas:
    """The other gateways, as this one asks and answers them."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def stop(self, request: control_pb2.StopAgentsRequest, stop: control_pb2.Stop) -> list[StopAgentsResponse]:
        """Has a stop hold at all others (gateway_svc.stopping.stops.Others), which find it in the database besides."""
        told = {"stop": base64.b64encode(stop.SerializeToString()).decode(), "let": request.let_running_calls_end}
        call = Call(STOP, json.dumps(told).encode(), "")
        answers = await self._calls.ask(call, lambda answer: False, seconds=END_SECONDS + WAIT_SECONDS)
        return [StopAgentsResponse.FromString(_done(answer)) for answer in answers]

    async def resume(self, stop_id: str) -> None:
        """Lifts a stop at all others (gateway_svc.stopping.stops.Others)."""
        for answer in await self._calls.ask(Call(RESUME, stop_id.encode(), ""), lambda answer: False):
            _done(answer)

    def answer_for(self, gateway: GatewayServicer, approvals: ApprovalServicer, stops: Stops) -> None:
        """Answers what other gateways pass on."""
        outgoing = Outgoing(lambda error: _status(error).SerializeToString())

        async def adopt(request: bytes) -> Answer:
            told = json.loads(request)
            stop = control_pb2.Stop.FromString(base64.b64decode(told["stop"]))
            asked = control_pb2.StopAgentsRequest(let_running_calls_end=told["let"])
            return Answer((await stops.adopt(asked, stop)).SerializeToString(), None)

        async def forget(request: bytes) -> Answer:
            stops.forget(request.decode())
            return Answer(b"", None)

        methods: Mapping[str, Callable[[bytes], Awaitable[Answer]]] = {
            CANCEL: _single(pb.CancelTurnRequest, gateway.CancelTurn),
            UPDATE: _single(pb.UpdateSessionRequest, gateway.UpdateSession),
            ANSWER: _single(approvals_pb2.AnswerToolCallRequest, approvals.AnswerToolCall),
            LIST: _single(approvals_pb2.ListPendingToolCallsRequest, approvals.ListPendingToolCalls),
            RUN: _many(pb.RunTurnRequest, gateway.RunTurn, outgoing),
            ATTACH: _many(pb.AttachTurnRequest, gateway.AttachTurn, outgoing),
            WATCH: _many(approvals_pb2.WatchPendingToolCallsRequest, approvals.WatchPendingToolCalls, outgoing),
            READ: outgoing.read,
            CLOSE: outgoing.close,
            STOP: adopt,
            RESUME: forget,
        }

        async def answer(call: Call) -> Answer:  # in a task of its own, with a context of its own
            try:
                if call.error is not None:
                    raise call.error
                if call.caller:
                    told = json.loads(call.caller)
                    enter(Caller(told["name"], frozenset(map(Role, told["roles"]))))
                return await methods[call.method](call.request)
            except Exception as error:  # noqa: BLE001 - whatever it is, who asks is told
                return Answer(None, _status(error).SerializeToString())

        self._calls.answer = answer


def _single(request: Any, behaviour: Local) -> Callable[[bytes], Awaitable[Answer]]:
    async def answer(data: bytes) -> Answer:
        return Answer((await behaviour(request.FromString(data), None)).SerializeToString(), None)

    return answer


def _many(request: Any, behaviour: Local, outgoing: Outgoing) -> Callable[[bytes], Awaitable[Answer]]:
    async def encoded(data: bytes) -> AsyncGenerator[bytes, None]:
        async with aclosing(behaviour(request.FromString(data), None)) as answers:
            async for answer in answers:
                yield answer.SerializeToString()

    async def answer(data: bytes) -> Answer:
        return await outgoing.open(encoded(data))

    return answer


def _status(error: BaseException) -> status_pb2.Status:
    """What is told of an error here; what a stream of another gateway ended with is told as it is."""
    return status_pb2.Status.FromString(error.status) if isinstance(error, StreamEnded) else status_of(error)


def _done(answer: Answer) -> bytes:
    """What another gateway answered to what it must be able to do."""
    if answer.error is not None:
        raise answer.error
    if answer.response is None:
        raise ShuttingDown(f"gateway {answer.gateway} of those that share sessions did not do so: try again")
    return answer.response


def _call(method: str, request: Any) -> Call:
    caller = current_caller()
    told = json.dumps({"name": caller.name, "roles": sorted(caller.roles)}) if caller else ""
    return Call(method, request if isinstance(request, bytes) else request.SerializeToString(), told)


def _any(answer: Answer) -> bool:
    return True


def _is(answer: Answer, code: int) -> bool:
    return answer.status is not None and status_pb2.Status.FromString(answer.status).code == code


def _knows(answer: Answer) -> bool:
    return not _is(answer, code_pb2.NOT_FOUND)


def _known(answers: Sequence[Answer], unknown: NotFound) -> Answer:
    """The answer of the first that knows what is meant.

    Raises:
        KeyMissing, Damaged: one may know, and its answer cannot be read.
        NotFound: nobody does.
    """
    for answer in answers:
        if answer.error is None and _knows(answer):
            return answer
    raise next((answer.error for answer in answers if answer.error is not None), unknown)


def _response(answer: Answer) -> bytes:
    """The response of another gateway.

    Raises:
        StreamEnded: it ended the call with a status.
        KeyMissing, Damaged: it cannot be read.
    """
    if answer.error is not None:
        raise answer.error
    if answer.status is not None:
        raise StreamEnded(answer.status)
    return answer.response or b""


def _told(behaviour: Local) -> Local:
    """Ends a call with the status that another gateway ended it with."""

    async def single(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except StreamEnded as error:
            ended = error
        return await context.abort_with_status(rpc_status.to_status(_status(ended)))

    return single


def _told_stream(behaviour: Local) -> Local:
    async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async with aclosing(behaviour(request, context)) as answers:
            try:
                async for answer in answers:
                    yield answer
                return
            except StreamEnded as error:
                ended = error
        await context.abort_with_status(rpc_status.to_status(_status(ended)))

    return stream
