"""A service's own errors become gRPC statuses in one place, so that handlers only raise them."""

import contextlib
import inspect
import secrets
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends an RPC whose handler raised with the status that belongs to the error.

    An error that has no status becomes INTERNAL with a reference id; the log has the same id, the error's type and its
    traceback, but not its message, which may quote content. A cancellation propagates, and so does context.abort().
    """

    def __init__(
        self,
        statuses: Mapping[type[Exception], grpc.StatusCode],
        retry_after_seconds: Mapping[type[Exception], float] | None = None,
    ) -> None:
        """Takes the status of an error by its type, of a type and its ancestors the nearest.

        retry_after_seconds: for the types whose status carries a RetryInfo, how long a client should wait.
        """
        self._statuses = {**statuses, DecodeError: grpc.StatusCode.INVALID_ARGUMENT}
        self._retry_after_seconds = dict(retry_after_seconds or {})

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wraps the handler that the call is for."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        kind = "_".join(
            "stream" if side else "unary" for side in (handler.request_streaming, handler.response_streaming)
        )
        behaviour = getattr(handler, kind)
        decode = handler.request_deserializer
        if not handler.request_streaming:
            # Decoded inside the guard, so that bytes that are no message end in INVALID_ARGUMENT too.
            behaviour, decode = _decoding(behaviour, decode), None
        guarded = self._guard_stream if inspect.isasyncgenfunction(behaviour) else self._guard
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(  # type: ignore[no-any-return]  # one of grpc's four makers, chosen by name
            guarded(behaviour, method), request_deserializer=decode, response_serializer=handler.response_serializer
        )

    def _guard(self, behaviour: Callable[..., Any], method: str) -> Callable[[Any, Context], Awaitable[Any]]:
        async def guarded(request: Any, context: Context) -> Any:
            try:
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises has a status
                await self._abort(error, context, method)

        return guarded

    def _guard_stream(
        self, behaviour: Callable[..., AsyncGenerator[Any, None]], method: str
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async with contextlib.aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except Exception as error:  # noqa: BLE001 - as in _guard
                await self._abort(error, context, method)

        return guarded

    async def _abort(self, error: Exception, context: Context, method: str) -> None:
        if isinstance(error, grpc.aio.BaseError):
            raise error
        status = self._status(error, method)
        details = rpc_status.to_status(status)
        await context.abort(details.code, details.details, details.trailing_metadata)

    def _status(self, error: Exception, method: str) -> status_pb2.Status:
        for cls in type(error).__mro__:
            if cls in self._statuses:
                break
        else:
            return _internal(error, method)
        code = self._statuses[cls]
        message = "the request is not a valid message of its type" if isinstance(error, DecodeError) else str(error)
        log.info("rpc.refused", method=method, code=code.name, error=type(error).__name__)
        status = status_pb2.Status(code=code.value[0], message=message)
        if cls in self._retry_after_seconds:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(self._retry_after_seconds[cls] * 1000))
            status.details.add().Pack(retry)
        return status


def _internal(error: Exception, method: str) -> status_pb2.Status:
    reference = secrets.token_hex(8)
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("rpc.failed", method=method, reference=reference, error=type(error).__qualname__, traceback=frames)
    message = f"an error that is not the caller's; the service's log has it under reference {reference}"
    return status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=message)


def _decoding(behaviour: Callable[..., Any], decode: Callable[[bytes], Any] | None) -> Callable[..., Any]:
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
