"""OTLP over HTTP: POST /v1/traces, /v1/logs and /v1/metrics, in protobuf or JSON.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from intake_svc.door import Door
from intake_svc.errors import STATUSES, TooLarge, Unsupported
from intake_svc.metrics import DoorMetrics
from intake_svc.signals import SIGNALS, Signal
from intake_svc.unpacking import Unpacked, parse_json, parse_protobuf, unpack
from service_kit.access.callers import caller_name
from service_kit.access.guard import Guard
from service_kit.errors import ErrorStatuses, Overloaded

log = structlog.get_logger(__name__)

PROTOBUF, JSON = "application/x-protobuf", "application/json"
BODY_SECONDS = 60.0
"""How long a client may take to send its body."""

_PARSERS: dict[str, Callable[[Signal, bytes], Unpacked]] = {PROTOBUF: parse_protobuf, JSON: parse_json}
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}
_CODES_OF_NUMBERS = {code.value[0]: http for code, http in _CODES.items()}
# Errors of which HTTP says more than gRPC. Not every exporter tries again at 429.
_CODES_OF_ERRORS: dict[type[Exception], int] = {TooLarge: 413, Unsupported: 415, Overloaded: 503}
_STATUSES = ErrorStatuses(STATUSES)


class OtlpApp:
    """The ASGI application."""

    def __init__(
        self, door: Door, guard: Guard, metrics: DoorMetrics, max_bytes: int, more: Sequence[Route] = ()
    ) -> None:
        """max_bytes: of one body, as it comes and unpacked. more: other routes of the door."""
        self._door = door
        self._guard = guard
        self._metrics = metrics
        self._max_bytes = max_bytes
        self.asgi = Starlette(
            routes=[
                # not every exporter follows a redirect to the path without a slash behind it
                *(
                    Route(f"/v1/{signal.name}{end}", partial(self._answer, signal), methods=["POST"])
                    for signal in SIGNALS
                    for end in ("", "/")
                ),
                *more,
            ]
        )

    async def _answer(self, signal: Signal, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        peer = request.client.host if request.client else ""
        try:
            with self._guard.entering(signal.method, request.headers.getlist("authorization"), peer):
                response = _response(200, await self._export(signal, kind, request), kind)
        except ClientDisconnect:
            response = Response(status_code=400)  # which nobody hears
        except Exception as error:  # noqa: BLE001 - whatever is raised has a status
            response = self._refusal(error, signal, kind, peer)
        self._metrics.count_http(signal.name, response.status_code)
        return response

    async def _export(self, signal: Signal, kind: str, request: Request) -> Message:
        parse = _PARSERS.get(kind)
        if parse is None:
            raise Unsupported(f"Content-Type must be {PROTOBUF} or {JSON}")
        encoding = request.headers.get("content-encoding", "").strip().lower()
        with self._door.holding(0) as hold:
            body = await read_body(request, hold, self._max_bytes)
            return await self._door.take(signal, lambda: parse(signal, unpack(body, encoding, self._max_bytes)))

    def _refusal(self, error: Exception, signal: Signal, kind: str, peer: str) -> Response:
        status = _STATUSES.of(error, signal.method)
        code = _code(error, status.code)
        if code < 500 or code == 503:
            who = {"caller": caller_name(), "peer": peer}
            log.info("http.refused", signal=signal.name, code=code, error=type(error).__name__, **who)
        response = _response(code, status, kind)
        retry = error_details_pb2.RetryInfo()
        if any(detail.Unpack(retry) for detail in status.details):
            response.headers["Retry-After"] = str(max(1, math.ceil(retry.retry_delay.ToMilliseconds() / 1000)))
        if code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if code == 413:
            response.headers["Connection"] = "close"  # what is left of the body is not read
        return response


async def read_body(request: Request, hold: Callable[[int], None], max_bytes: int) -> bytes:
    """The body of a request, of at most max_bytes. hold: has room for so many more bytes, or raises.

    Raises:
        TooLarge, Overloaded: it is too large, too slow, or there is no room.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and len(told) < 20 and int(told) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                hold(len(chunk))
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise Overloaded(f"the body did not come within {BODY_SECONDS:g} s: send it again") from None
    return bytes(body)


def http_code(error: Exception, method: str) -> tuple[int, str]:
    """The status of an error over HTTP, and what the client is told."""
    status = _STATUSES.of(error, method)
    return _code(error, status.code), status.message


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body has more than {max_bytes:,} bytes: send it in several requests")


def _code(error: Exception, number: int) -> int:
    return _CODES_OF_ERRORS.get(type(error)) or _CODES_OF_NUMBERS.get(number, 500)


def _response(code: int, message: Message, kind: str) -> Response:
    """A message in the format of the request, as OTLP wants it; protobuf where that was no format."""
    if kind == JSON:
        if isinstance(message, status_pb2.Status):
            message = status_pb2.Status(code=message.code, message=message.message)  # its details are of other types
        return Response(MessageToJson(message, indent=None), code, media_type=JSON)
    content: Any = message.SerializeToString()
    return Response(content, code, media_type=PROTOBUF)
