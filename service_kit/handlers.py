"""gRPC's four kinds of handlers, so that a wrapper is written once."""

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Any]


def rebuild(handler: Handler, around: Callable[[Behaviour], Behaviour]) -> Handler:
    """The handler with its behaviour replaced by around(behaviour).

    A single request is given to it undecoded, so that what is around decides before bytes of strangers are parsed.
    """
    kind = "_".join("stream" if side else "unary" for side in (handler.request_streaming, handler.response_streaming))
    behaviour, decode = getattr(handler, kind), handler.request_deserializer
    if not handler.request_streaming:
        behaviour, decode = _decoding(behaviour, decode), None
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(  # type: ignore[no-any-return]  # one of grpc's four makers, chosen by name
        around(behaviour), request_deserializer=decode, response_serializer=handler.response_serializer
    )


def _decoding(behaviour: Behaviour, decode: Callable[[bytes], Any] | None) -> Behaviour:
    if decode is None:
        return behaviour
    if inspect.isasyncgenfunction(behaviour):

        async def stream(request: bytes, context: Context) -> AsyncIterator[Any]:
            async with contextlib.aclosing(behaviour(decode(request), context)) as responses:
                async for response in responses:
                    yield response

        return stream

    async def unary(request: bytes, context: Context) -> Any:
        return await behaviour(decode(request), context)

    return unary
