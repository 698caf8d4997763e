"""A replica that does not write passes what is to be written on to the one that does, as its caller sent it.

It shows there what the caller showed here, and the writer looks at it itself: no replica is believed when it says who
calls. A caller that is known by its certificate cannot be passed on, and is told where the writer is.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing, suppress
from typing import Any

import grpc
from google.protobuf.message import Message

from audit_svc.errors import NotWriter
from recording.channel.details import has_details
from recording.channel.options import DIRECT, MAX_MESSAGE_BYTES
from service_kit.access.callers import current_caller
from service_kit.handlers import CallDetails, Context, Handler, HandlerInterceptor

PASSED_ON = "onrecord-passed-on"
"""Metadata of a call that another replica passed on: it is not passed on again."""
_KEPT = ("authorization", "traceparent", "tracestate")
_OPTIONS = [
    *DIRECT,
    ("grpc.enable_retries", 0),  # the caller decides on that
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]


class ForwardingInterceptor(HandlerInterceptor):
    """It goes behind all other interceptors: a call that comes to it may be made."""

    def __init__(
        self,
        methods: Collection[str],
        writer: Callable[[], str | None],
        credentials: Callable[[], grpc.ChannelCredentials] | None = None,
    ) -> None:
        """Passes on calls of methods, /package.Service/Method.

        writer: the address of the replica that writes, empty where it is not known; None where it is this one.
        credentials: for connections to it; None for plain text.
        """
        self._methods = frozenset(methods)
        self._writer = writer
        self._credentials = credentials
        self._address = ""
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """The handler itself where this replica writes."""
        method = details.method
        if method not in self._methods or (address := self._writer()) is None:
            return handler
        reads, replies = bool(handler.request_streaming), bool(handler.response_streaming)

        async def stream(request: Any, context: Context) -> AsyncIterator[bytes]:
            async with aclosing(self._pass_on(method, address, request if reads else _one(request), context)) as told:
                async for answer in told:
                    yield answer

        async def single(request: Any, context: Context) -> bytes:
            answers = [answer async for answer in stream(request, context)]
            return answers[0]

        kind = "_".join("stream" if streams else "unary" for streams in (reads, replies))
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        # Without a serializer: what the writer has answered goes on as it is.
        made: Handler = make(stream if replies else single, request_deserializer=handler.request_deserializer)
        return made

    def writer_changed(self) -> None:
        """Ends what is under way with a writer that is none any more: neither it nor its machine may ever answer."""
        if self._channel is not None and self._writer() != self._address:
            closing = asyncio.get_running_loop().create_task(self._channel.close())
            self._channel = None
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Ends what is under way."""
        if self._channel is not None:
            await self._channel.close()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _pass_on(
        self, method: str, address: str, requests: AsyncIterator[Message], context: Context
    ) -> AsyncGenerator[bytes, None]:
        """The answers of the writer. A call of gRPC's is a stream both ways, whatever its method says."""
        metadata = _metadata(context, address)
        ask: Any = self._reach(address).stream_stream(method)
        call = ask(timeout=context.time_remaining(), metadata=metadata)
        feeding = asyncio.create_task(_feed(requests, call))
        # Looked at here too, since the writer may end the call first.
        feeding.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async for answer in call:
                yield answer
            await feeding
            return
        except grpc.aio.AioRpcError as error:
            failed = error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not call.cancelled() or (task is not None and task.cancelling()):
                raise
            raise NotWriter("the replica that wrote is none any more: try again", address) from None
        finally:
            feeding.cancel()
            call.cancel()
        if not has_details(failed):
            # Not the writer has said so, but gRPC of its connection.
            raise NotWriter("the replica that writes cannot be reached now: try again", address)
        await context.abort(failed.code(), failed.details() or "", tuple(failed.trailing_metadata() or ()))

    def _reach(self, address: str) -> grpc.aio.Channel:
        if self._channel is None or address != self._address:
            self.writer_changed()
            credentials = self._credentials() if self._credentials else None
            self._channel = (
                grpc.aio.secure_channel(address, credentials, _OPTIONS)
                if credentials
                else grpc.aio.insecure_channel(address, _OPTIONS)
            )
            self._address = address
        return self._channel


def _metadata(context: Context, address: str) -> list[tuple[str, str | bytes]]:
    """What the caller showed. Raises NotWriter where the writer could not know it by that."""
    shown = list(context.invocation_metadata() or ())
    names = {key for key, _ in shown}
    if PASSED_ON in names:
        raise NotWriter("this replica does not write any more, nor the one that passed the call on: try again", "")
    if not address:
        raise NotWriter("no replica writes now, or it has told no address: try again", "")
    if current_caller() is not None and "authorization" not in names:
        raise NotWriter(
            f"this replica does not write, and cannot pass on a call of who is known by a certificate: call {address}",
            address,
        )
    return [(PASSED_ON, "1"), *((key, value) for key, value in shown if key in _KEPT)]


async def _feed(requests: AsyncIterator[Message], call: Any) -> None:
    """Writes requests, and raises what reading them does when those before it are answered."""
    with suppress(asyncio.InvalidStateError):  # the call has ended, as its answers say
        try:
            async for request in requests:
                await call.write(request.SerializeToString())
        finally:
            await call.done_writing()


async def _one(request: Message) -> AsyncIterator[Message]:
    yield request
