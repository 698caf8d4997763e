"""Which worker answers a call: the one that what it names belongs to, the first that knows it, or all of them.

It stands behind the guards, on the port that clients see. What one worker asks another goes to the handlers at once.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import NotFound, ShuttingDown
from gateway_svc.servicer import APPROVALS, GATEWAY, owner_of_call
from gateway_svc.workers.peers import Peer, Peers
from gateway_svc.workers.pending import list_pending, watch_pending
from gateway_svc.workers.table import Field
from gateway_svc.workers.worker import home_of
from service_kit.handlers import CallDetails, Context, Handler, HandlerInterceptor

KNOWS_REQUEST = "/onrecord.gateway.workers.Worker/KnowsRequest"
"""Between workers: takes a RunTurnRequest; the answer is empty where its request_id is not known."""
UNEVEN = 2
"""By so many turns a worker may have more than another before a new session goes to that one."""

_OF_SESSIONS = {f"/{GATEWAY}/{name}" for name in ("GetSession", "UpdateSession", "DeleteSession")}
_CANCEL, _ATTACH, _RUN = (f"/{GATEWAY}/{name}" for name in ("CancelTurn", "AttachTurn", "RunTurn"))
_ANSWER, _LIST, _WATCH = (
    f"/{APPROVALS}/{name}" for name in ("AnswerToolCall", "ListPendingToolCalls", "WatchPendingToolCalls")
)

Local = Callable[[Any, Context], Any]


class RoutingInterceptor(HandlerInterceptor):
    """Sends calls to the workers that they are for. It goes behind all other interceptors."""

    def __init__(self, peers: Peers, knows: Callable[[pb.RunTurnRequest, str], bool]) -> None:
        """knows: whether this worker remembers a request under this request_id of a caller."""
        self._knows = knows
        self._peers = peers
        self._worker = peers.worker

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Puts the choice in front of the handler."""
        method = details.method
        local: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
        route: Any
        if method in _OF_SESSIONS or method in (_CANCEL, _ANSWER):
            route = self._single(method, local)
        elif method in (_RUN, _ATTACH):
            route = self._stream(method, local)
        elif method == _LIST:
            route = list_pending(self._peers, method, local)
        elif method == _WATCH:
            route = watch_pending(self._others, method, local)
        else:
            return handler
        serialize: Any = handler.response_serializer
        make: Any = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        made: Handler = make(
            route,
            request_deserializer=handler.request_deserializer,
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else serialize(answer),
        )
        return made

    async def _others(self) -> list[Peer]:
        return list(self._peers)

    def _single(self, method: str, local: Local) -> Local:
        async def single(request: Any, context: Context) -> Any:
            if method in _OF_SESSIONS or (method == _CANCEL and not request.turn_id):
                peer = self._home(request.session_id)
                if peer is None:
                    return await local(request, context)
                return await told(peer.call(method, request.SerializeToString()), context)
            return await self._first(method, local, request, context)

        return single

    async def _first(self, method: str, local: Local, request: Any, context: Context) -> Any:
        """The answer of the first worker that knows what is meant.

        Raises:
            NotFound: none does.
            ShuttingDown: none does of those that could be asked.
        """
        try:
            return await local(request, context)
        except NotFound as error:
            unknown: Exception = error
        for peer in self._peers:
            try:
                return await peer.call(method, request.SerializeToString())
            except ShuttingDown as error:
                unknown = error
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    await _pass_on(error, context)
        raise unknown

    def _stream(self, method: str, local: Local) -> Local:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            choose = self._run(local, request, context) if method == _RUN else self._attach(local, request, context)
            async with aclosing(choose) as answers:
                try:
                    async for answer in answers:
                        yield answer
                    return
                except grpc.aio.AioRpcError as error:
                    failed = error
            await _pass_on(failed, context)

        return stream

    async def _run(self, local: Local, request: pb.RunTurnRequest, context: Context) -> AsyncGenerator[Any, None]:
        peer = await self._runner(request)
        answers = local(request, context) if peer is None else peer.stream(_RUN, request.SerializeToString())
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def _attach(self, local: Local, request: pb.AttachTurnRequest, context: Context) -> AsyncGenerator[Any, None]:
        unknown: Exception | None = None
        for peer in (None, *self._peers):
            answers = local(request, context) if peer is None else peer.stream(_ATTACH, request.SerializeToString())
            async with aclosing(answers):
                try:
                    async for answer in answers:
                        yield answer
                    return
                except NotFound as error:  # before any event
                    unknown = error
                except ShuttingDown as error:
                    if peer is None:
                        raise
                    unknown = error
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.NOT_FOUND:
                        raise
        if unknown is not None:
            raise unknown

    async def _runner(self, request: pb.RunTurnRequest) -> Peer | None:
        """The worker that runs a turn: who ran an equal request, the session's home, or one with room."""
        if request.request_id and self._knows(request, owner_of_call()):
            return None
        if request.request_id:
            data = request.SerializeToString()
            known = await asyncio.gather(*(peer.call(KNOWS_REQUEST, data) for peer in self._peers))
            if found := next((peer for peer, answer in zip(self._peers, known, strict=True) if answer), None):
                return found
        if request.HasField("session_id"):
            return self._home(request.session_id)
        if request.request_id:
            return self._home(f"{owner_of_call()} {request.request_id}")
        table, own = self._worker.table, self._worker.slot
        serving = [slot for slot in range(self._worker.workers) if table.get(slot, Field.SERVES)]
        best = min(serving, key=lambda slot: table.get(slot, Field.TURNS), default=own)
        is_full = table.get(own, Field.TURNS) >= table.get(best, Field.TURNS) + UNEVEN
        return self._peers.get(best) if is_full or own not in serving else None

    def _home(self, key: str) -> Peer | None:
        return self._peers.get(home_of(key, self._worker.workers)) if key else None


async def told(answer: Any, context: Context) -> Any:
    """The answer of another worker, or the status that it ended the call with."""
    try:
        return await answer
    except grpc.aio.AioRpcError as error:
        failed = error
    return await _pass_on(failed, context)


async def _pass_on(error: grpc.aio.AioRpcError, context: Context) -> Any:
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
