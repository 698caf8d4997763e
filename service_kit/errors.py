"""A service's own errors become gRPC statuses in one place, so that handlers only raise them.

Each status has an ErrorInfo of the domain `onrecord.dev`. Its reason is the error's name in capitals, such as
QUEUE_FULL, or that of its nearest ancestor that common.proto lists as an ErrorReason; its metadata is the error's
`metadata`, a dictionary of texts, if it has one, and of an error about one thing its kind, `resource`, such as session,
and its `id`. An error with a `field`, the path of the request's field that is at fault, adds a BadRequest, and one that
passes a RetryInfo.
"""

import contextlib
import inspect
import re
import secrets
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from onrecord.common.v1 import common_pb2

from service_kit.handlers import CallDetails, Handler, HandlerInterceptor, rebuild
from service_kit.handlers import Context as Context

log = structlog.get_logger(__name__)

ERROR_DOMAIN = "onrecord.dev"
MAX_STATUS_BYTES = 1000
"""Of a status's text, in UTF-8. It goes out three times (text, details, BadRequest), percent-encoded or in base64, and
gRPC's peers take 8 KiB of trailers."""
MAX_ID = 128
"""Of the id in a status's metadata, in characters."""


class InvalidRequest(Exception):
    """The request has what no version of it that this service knows has. `field` is the path of the field at fault."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Unauthenticated(Exception):
    """The caller has not shown who it is."""


class PermissionDenied(Exception):
    """The caller is known, and may not do this."""


class RateExceeded(Exception):
    """The caller calls more often than it may; trying again later helps."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Overloaded(Exception):
    """A limit of the service as a whole is reached; trying again later helps."""

    retry_after_seconds = 1.0


_REASONS = frozenset(common_pb2.ErrorReason.keys())
_COMMON = {
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    RateExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class ErrorStatuses:
    """Which status belongs to an error, wherever it is told.

    An error that has no status becomes INTERNAL with a reference id; the log has the same id, the error's type and its
    traceback, but not its message, which may quote content.
    """

    def __init__(
        self,
        statuses: Mapping[type[Exception], grpc.StatusCode],
        retry_after_seconds: Mapping[type[Exception], float] | None = None,
    ) -> None:
        """Takes the status of an error by its type, of a type and its ancestors the nearest.

        retry_after_seconds: for the types whose status carries a RetryInfo, how long a client should wait.

        Raises:
            ValueError: a type has no reason in ErrorReason.
        """
        self._codes = {**_COMMON, **statuses}
        for cls in self._codes:
            _reason(cls)
        self._retry_after_seconds = dict(retry_after_seconds or {})

    def of(self, error: BaseException, method: str) -> status_pb2.Status:
        """The status of an error that ended method, such as /package.Service/Method."""
        for cls in type(error).__mro__:
            if cls in self._codes:
                break
        else:
            return _internal(error, method)
        code = self._codes[cls]
        message = "the request is not a valid message of its type" if isinstance(error, DecodeError) else str(error)
        status = _status(code, message, _reason(type(error)), **_metadata(error))
        if field := getattr(error, "field", ""):
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=cut(message))
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        seconds = getattr(error, "retry_after_seconds", self._retry_after_seconds.get(cls))
        if seconds is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(seconds * 1000))
            status.details.add().Pack(retry)
        return status


class ErrorInterceptor(HandlerInterceptor):
    """Ends an RPC whose handler raised with the status that belongs to the error; see ErrorStatuses.

    A cancellation propagates, and so does context.abort().
    """

    def __init__(
        self,
        statuses: Mapping[type[Exception], grpc.StatusCode],
        retry_after_seconds: Mapping[type[Exception], float] | None = None,
    ) -> None:
        """The arguments are those of ErrorStatuses.

        Raises:
            ValueError: a type has no reason in ErrorReason.
        """
        self._statuses = ErrorStatuses(statuses, retry_after_seconds)

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Gives a status to what the handler raises."""

        def around(behaviour: Callable[..., Any]) -> Callable[..., Any]:
            guarded = self._guard_stream if inspect.isasyncgenfunction(behaviour) else self._guard
            return guarded(behaviour, details.method)

        return rebuild(handler, around)

    # An abort's error and its RPC refer to each other, so that what its frames hold stays until cycles are looked for:
    # none of them may hold the request. A stream's error may be held by a task that its own frames hold.

    def _guard(self, behaviour: Callable[..., Any], method: str) -> Callable[[Any, Context], Awaitable[Any]]:
        async def guarded(request: Any, context: Context) -> Any:
            try:
                return await behaviour(request, context)
            except grpc.aio.BaseError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a handler raises has a status
                status = self._statuses.of(error, method)
                name = type(error).__name__
                traceback.clear_frames(error.__traceback__)
            del request
            return await _abort(status, name, context, method)

        return guarded

    def _guard_stream(
        self, behaviour: Callable[..., AsyncGenerator[Any, None]], method: str
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async with contextlib.aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
                return
            except grpc.aio.BaseError:
                raise
            except Exception as error:  # noqa: BLE001 - as in _guard
                status = self._statuses.of(error, method)
                name = type(error).__name__
                traceback.clear_frames(error.__traceback__)
            del request, responses
            await _abort(status, name, context, method)

        return guarded


async def _abort(status: status_pb2.Status, error: str, context: Context, method: str) -> None:
    details = rpc_status.to_status(status)
    if details.code is not grpc.StatusCode.INTERNAL:
        log.info("rpc.refused", method=method, code=details.code.name, error=error)
    await context.abort(details.code, details.details, (*details.trailing_metadata, *_pushback(status)))


def code_name(status: status_pb2.Status) -> str:
    """The name of a status's code, such as UNAVAILABLE."""
    return next((code.name for code in grpc.StatusCode if code.value[0] == status.code), str(status.code))


def about(error: BaseException) -> dict[str, Any]:
    """The reason and the metadata of an error as its status has them; empty for one that clients are not told of."""
    try:
        return {"reason": _reason(type(error)), "metadata": _metadata(error)}
    except ValueError:
        return {}


def _metadata(error: BaseException) -> dict[str, str]:
    named = {"resource": error.resource, "id": error.id[:MAX_ID]} if hasattr(error, "resource") else {}  # type: ignore[attr-defined] # beside resource
    return {**named, **getattr(error, "metadata", {})}


def _pushback(status: status_pb2.Status) -> list[tuple[str, str]]:
    """The trailer that tells a RetryInfo to gRPC's own retries (gRFC A6)."""
    retry = error_details_pb2.RetryInfo()
    has_retry = any(detail.Unpack(retry) for detail in status.details)
    return [("grpc-retry-pushback-ms", str(retry.retry_delay.ToMilliseconds()))] if has_retry else []


def _internal(error: BaseException, method: str) -> status_pb2.Status:
    reference = secrets.token_hex(8)
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("rpc.failed", method=method, reference=reference, error=type(error).__qualname__, traceback=frames)
    message = f"an error that is not the caller's; the service's log has it under reference {reference}"
    return _status(grpc.StatusCode.INTERNAL, message, "INTERNAL", reference=reference)


def _reason(cls: type) -> str:
    for ancestor in cls.__mro__:
        reason = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", ancestor.__name__).upper()
        if f"ERROR_REASON_{reason}" in _REASONS:
            return reason
    raise ValueError(f"{cls.__name__} has no reason: common.proto's ErrorReason lists all that clients may see")


def _status(code: grpc.StatusCode, message: str, reason: str, **metadata: str) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=cut(message))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata))
    return status


def cut(text: str) -> str:
    """At most MAX_STATUS_BYTES of text, with its begin and its end: the end says what to do."""
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_STATUS_BYTES:
        return text
    half = (MAX_STATUS_BYTES - 5) // 2
    return f"{data[:half].decode(errors='ignore')} … {data[-half:].decode(errors='ignore')}"
