"""What every RPC leaves behind, whatever its handler does: a count, a duration, and its caller and trace in the log."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import grpc
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service_kit.access.callers import caller_name
from service_kit.handlers import CallDetails, Context, Handler, HandlerInterceptor, rebuild, within
from service_kit.observing.trace_context import CALLERS_TRACE, read_trace_context

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Seconds: from an answer out of memory to the longest turns."""


class RpcObserver(HandlerInterceptor):
    """The outermost interceptor. It also hears of the statuses that interceptors behind it give."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled = Counter(
            "onrecord_rpcs", "RPCs that have ended, by method and status code.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "onrecord_rpc_seconds",
            "How long RPCs took, to the end of their stream.",
            ["method"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._running = Gauge("onrecord_rpcs_running", "RPCs under way.", ["method"], registry=registry)

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Has the handler observed."""

        @contextlib.contextmanager
        def observed(context: Context) -> Iterator[None]:
            trace = read_trace_context(details.invocation_metadata or ())
            CALLERS_TRACE.set(trace)
            # Never unbound: the context ends with the RPC's task.
            structlog.contextvars.bind_contextvars(caller=caller_name(), trace_id=trace.trace_id)
            with self._observe(details.method, context):
                yield

        return rebuild(handler, lambda behaviour: within(behaviour, observed))

    def pass_by(self) -> None:
        """Counts the call, and not by its name: anybody can call a method by any."""
        self._handled.labels("other", "UNIMPLEMENTED").inc()

    @contextlib.contextmanager
    def _observe(self, method: str, context: Context) -> Iterator[None]:
        running = self._running.labels(method)
        started, code = time.perf_counter(), ""
        running.inc()
        try:
            yield
            code = _code(context)
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            code = _code(context)
            raise
        except BaseException:
            code = "UNKNOWN"
            raise
        finally:
            running.dec()
            self._seconds.labels(method).observe(time.perf_counter() - started)
            self._handled.labels(method, code).inc()


def _code(context: Context) -> str:
    """The status that was set, OK when none was."""
    code: Any = context.code() or 0  # grpc gives its number, though typed as the enum
    return code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code, "UNKNOWN")
