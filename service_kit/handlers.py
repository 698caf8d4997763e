"""gRPC's four kinds of handlers, so that a wrapper is written once."""

import contextlib
import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc_health.v1 import health_pb2

from service_kit.time_slice import give_way

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Any]
CallDetails = grpc.HandlerCallDetails

LARGE_BYTES = 64 * 1024
"""Of a request that is counted and decoded in milliseconds. Nobody can give way in the middle of that."""

HEALTH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/"
"""What the names of health's RPCs begin with."""


class HandlerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler that each call is for."""

    async def intercept_service(
        self, continuation: Callable[[CallDetails], Awaitable["Handler | None"]], handler_call_details: CallDetails
    ) -> "Handler | None":
        """Has the handler wrapped, where there is one."""
        handler = await continuation(handler_call_details)
        if handler is None:
            self.pass_by()
            return None
        return self.wrap(handler, handler_call_details)

    @abstractmethod
    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """The handler in the place of handler."""

    def pass_by(self) -> None:
        """There is no handler for the call."""


def within(behaviour: Behaviour, guard: Callable[[Context], AbstractContextManager[None]]) -> Behaviour:
    """The behaviour, which runs within guard(context). It does not keep the request: see ErrorInterceptor."""
    if inspect.isasyncgenfunction(behaviour):

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            running = behaviour(request, context)
            del request
            with guard(context):
                async with contextlib.aclosing(running) as responses:
                    async for response in responses:
                        yield response

        return stream

    async def single(request: Any, context: Context) -> Any:
        with guard(context):
            running = behaviour(request, context)
            del request
            return await running

    return single


def decoded_by(handler: Handler, decode: Callable[[bytes], Any]) -> Handler:
    """The handler with its requests decoded by decode."""
    kind = _kind(handler)
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(  # type: ignore[no-any-return]  # one of grpc's four makers, chosen by name
        getattr(handler, kind), request_deserializer=decode, response_serializer=handler.response_serializer
    )


def rebuild(handler: Handler, around: Callable[[Behaviour], Behaviour]) -> Handler:
    """The handler with its behaviour replaced by around(behaviour).

    A single request is given to it undecoded, so that what is around decides before bytes of strangers are parsed.
    """
    kind = _kind(handler)
    behaviour, decode = getattr(handler, kind), handler.request_deserializer
    if not handler.request_streaming:
        behaviour, decode = _decoding(behaviour, decode), None
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(  # type: ignore[no-any-return]  # one of grpc's four makers, chosen by name
        around(behaviour), request_deserializer=decode, response_serializer=handler.response_serializer
    )


async def in_turn(decode: Callable[[bytes], T], request: bytes) -> T:
    """What decode makes of a request. Large ones are decoded one at a time, with others' turns in between."""
    if len(request) > LARGE_BYTES:
        await give_way()
    return decode(request)


def _kind(handler: Handler) -> str:
    return "_".join("stream" if side else "unary" for side in (handler.request_streaming, handler.response_streaming))


def _decoding(behaviour: Behaviour, decode: Callable[[bytes], Any] | None) -> Behaviour:
    if decode is None:
        return behaviour
    if inspect.isasyncgenfunction(behaviour):

        async def stream(request: bytes, context: Context) -> AsyncIterator[Any]:
            async with contextlib.aclosing(behaviour(await in_turn(decode, request), context)) as responses:
                async for response in responses:
                    yield response

        return stream

    async def unary(request: bytes, context: Context) -> Any:
        return await behaviour(await in_turn(decode, request), context)

    return unary
