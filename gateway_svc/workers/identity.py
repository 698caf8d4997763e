"""Who a forwarded call is from: told by the worker that took it, and believed between workers alone."""

import hmac
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from service_kit.access.callers import Caller, caller_name, current_caller, enter
from service_kit.access.roles import Role
from service_kit.errors import Unauthenticated
from service_kit.handlers import CallDetails, Context, Handler, HandlerInterceptor, rebuild
from service_kit.observing.trace_context import CALLERS_TRACE, read_trace_context

SECRET, CALLER = "onrecord-worker-bin", "onrecord-caller-bin"
"""Metadata: the secret of the workers, and who called, as JSON; none where everybody may do everything."""


def identity(secret: bytes) -> list[tuple[str, str | bytes]]:
    """The metadata that tell another worker who the call that is being answered is from, and its trace."""
    return list(_identity(secret))


def _identity(secret: bytes) -> Iterator[tuple[str, str | bytes]]:
    yield SECRET, secret
    if caller := current_caller():
        yield CALLER, json.dumps({"name": caller.name, "roles": sorted(caller.roles)}).encode()
    trace = CALLERS_TRACE.get()
    if trace.traceparent:
        yield "traceparent", trace.traceparent
        if trace.tracestate:
            yield "tracestate", trace.tracestate


class IdentityInterceptor(HandlerInterceptor):
    """Lets in who knows the secret, as whom it says: in the place of a list of callers, on a worker's own socket."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Puts the check in front of the handler."""
        streams = handler.response_streaming

        def around(behaviour: Any) -> Any:
            async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
                self._enter(context)
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response

            async def single(request: Any, context: Context) -> Any:
                self._enter(context)
                return await behaviour(request, context)

            return stream if streams else single

        return rebuild(handler, around)

    def _enter(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        metadata = dict(context.invocation_metadata() or ())
        secret = metadata.get(SECRET, b"")
        if not isinstance(secret, bytes) or not hmac.compare_digest(secret, self._secret):
            raise Unauthenticated("this socket is for the workers of the gateway alone")
        trace = read_trace_context(context.invocation_metadata() or ())
        CALLERS_TRACE.set(trace)
        structlog.contextvars.bind_contextvars(caller=caller_name(), trace_id=trace.trace_id)
        if CALLER in metadata:
            told = json.loads(metadata[CALLER])
            enter(Caller(told["name"], frozenset(map(Role, told["roles"]))))
