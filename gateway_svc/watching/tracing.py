"""OpenTelemetry traces: a span for each turn, model request and tool call, named by the GenAI conventions.

Spans of requests and calls are made from their rows, so traces have no content either.
The conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/. Only open_tracing() imports the extra `otel`.
"""

import os
import threading
import time
from typing import TYPE_CHECKING

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.engines.kinds import engine_kinds
from gateway_svc.errors import SettingsError
from gateway_svc.turns.account import Totals
from service_kit.extras import is_missing
from service_kit.observing.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

log = structlog.get_logger(__name__)

MAX_NAME_CHARACTERS = 256

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_CLOSE_SECONDS = 2.0

Attributes = dict[str, str | int]


class Tracing:
    """Makes the traces of turns."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._providers = {kind.name: kind.provider for kind in engine_kinds()}
        self._tracer = provider.get_tracer("onrecord.gateway_svc")
        self._propagator = TraceContextTextMapPropagator()

    def begin_turn(self, caller: TraceContext, engine: str, session_id: str, turn_id: str) -> "TurnTrace":
        """Starts the span of a turn, in the caller's trace if there is one."""
        parent = self._propagator.extract({"traceparent": caller.traceparent, "tracestate": caller.tracestate})
        about: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": self._providers.get(engine, engine),
            "gen_ai.conversation.id": session_id,
            "onrecord.turn.id": turn_id,
        }
        return TurnTrace(self._tracer, parent, about)

    def close(self) -> None:
        """Sends the remaining spans, but does not wait long for a collector that does not answer."""
        # In a thread that nobody waits for: the exporter may retry for a long time.
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            log.warning("traces.not_all_sent", hint="the collector does not answer: see OTEL_EXPORTER_OTLP_ENDPOINT")


if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Tracer


class TurnTrace:
    """The spans of one turn."""

    def __init__(self, tracer: "Tracer", parent: "Context", about: Attributes) -> None:
        from opentelemetry import trace

        self._otel = trace
        self._tracer = tracer
        self._about = about
        self._started_ns = time.time_ns()
        self._span = tracer.start_span(
            "invoke_agent", parent, trace.SpanKind.INTERNAL, attributes=about, start_time=self._started_ns
        )
        self._context = trace.set_span_in_context(self._span)
        self.trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)
        """32 lower-case hexadecimal digits."""

    def add_step(self, cost: audit_pb2.CostRow, error_type: str) -> None:
        """Adds the span of a model request."""
        about = self._about | {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": cost.requested_model,
            "gen_ai.response.model": cost.model,
            "gen_ai.usage.input_tokens": cost.input_tokens,
            "gen_ai.usage.output_tokens": cost.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": cost.cached_input_tokens,
            "gen_ai.usage.reasoning.output_tokens": cost.reasoning_tokens,
        }
        self._span.set_attribute("gen_ai.request.model", cost.requested_model)
        failure = (error_type or "_OTHER") if cost.HasField("error") or error_type else ""
        self._add(
            f"chat {cost.requested_model}",
            self._otel.SpanKind.CLIENT,
            about,
            failure,
            cost.created_at_ms,
            cost.duration_ms,
        )

    def add_tool_call(self, row: audit_pb2.AuditRow) -> None:
        """Adds the span of a tool call."""
        about = self._about | {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": row.tool_name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": row.provider_call_id,
            "onrecord.audit_row.id": row.id,
        }
        outcome = common_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_").lower()
        failure = "" if row.outcome in {common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_DRY_RUN} else outcome
        self._add(
            f"execute_tool {row.tool_name}",
            self._otel.SpanKind.INTERNAL,
            about,
            failure,
            row.created_at_ms,
            row.duration_ms,
        )

    def end(self, stop_reason: str, totals: Totals, error_type: str) -> None:
        """Ends the span of the turn."""
        self._span.set_attributes(
            {
                "onrecord.stop_reason": stop_reason,
                "gen_ai.usage.input_tokens": totals.input_tokens,
                "gen_ai.usage.output_tokens": totals.output_tokens,
            }
        )
        if error_type:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(self._otel.StatusCode.ERROR)
        self._span.end()

    def _add(
        self, name: str, kind: "SpanKind", about: Attributes, failure: str, created_at_ms: int, duration_ms: int
    ) -> None:
        # Rows have milliseconds: the first may begin before the turn's span.
        start = max(created_at_ms * 1_000_000, self._started_ns)
        if failure:
            about["error.type"] = failure
        span = self._tracer.start_span(name, self._context, kind, attributes=about, start_time=start)
        if failure:
            span.set_status(self._otel.StatusCode.ERROR)
        span.end(max(start, (created_at_ms + duration_ms) * 1_000_000))


def open_tracing(*, wanted: bool | None) -> Tracing | None:
    """Sets up traces by the standard variables OTEL_…; None if they are off.

    wanted: None means on if OTEL_… names a collector and the extra is installed.

    Raises:
        SettingsError: traces are wanted and not available.
    """
    if "true" in _variable("OTEL_SDK_DISABLED").lower() or _variable("OTEL_TRACES_EXPORTER") == "none":
        return None
    if wanted is None:
        wanted = any(map(_variable, _ENDPOINTS))
        if wanted and not _installed():
            log.warning("traces.off", hint=f"OTEL_… names a collector, but {is_missing('otel')}")
            return None
    if not wanted:
        return None
    if not _installed():
        raise SettingsError(f"GATEWAY_TRACES: is on, but {is_missing('otel')}")
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = _variable("OTEL_SERVICE_NAME") or "onrecord-gateway"
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    log.info("traces.on")
    return Tracing(provider)


def _installed() -> bool:
    try:
        import opentelemetry.exporter.otlp.proto.grpc
        import opentelemetry.sdk  # noqa: F401 - looked for, not used
    except ImportError:
        return False
    return True


def _variable(name: str) -> str:
    return os.environ.get(name, "")


def _exporter() -> "SpanExporter":
    protocol = _variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or _variable("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if protocol != "grpc":
        raise SettingsError("OTEL_EXPORTER_OTLP_PROTOCOL: only grpc is spoken here; collectors take it on port 4317")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
