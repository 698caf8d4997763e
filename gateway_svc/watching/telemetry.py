"""Passes what turns report to metrics and traces."""

import time

from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from prometheus_client import CollectorRegistry

from gateway_svc.turns.account import Totals
from gateway_svc.watching.metrics import TurnMetrics, stop_label
from gateway_svc.watching.tracing import Tracing, TurnTrace
from service_kit.observing.trace_context import CALLERS_TRACE


class TurnTelemetry:
    """One turn (the StepObserver protocol)."""

    def __init__(self, engine: str, metrics: TurnMetrics, trace: TurnTrace | None, trace_id: str) -> None:
        self.trace_id = trace_id
        """The id of the caller's trace or, if there is none and traces are on, of the turn's own; else empty."""
        self._engine = engine
        self._metrics = metrics
        self._trace = trace
        self._started = time.monotonic()
        metrics.begin_turn(engine)

    def step_finished(self, cost: audit_pb2.CostRow, error_type: str) -> None:
        """Counts and traces a model request."""
        self._metrics.count_step(cost)
        if self._trace:
            self._trace.add_step(cost, error_type)

    def tool_call_finished(self, row: audit_pb2.AuditRow) -> None:
        """Counts and traces a tool call."""
        self._metrics.count_tool_call(row)
        if self._trace:
            self._trace.add_tool_call(row)

    def end(self, stop_reason: pb.StopReason.ValueType, totals: Totals, error_type: str) -> None:
        """The turn has ended; error_type is the error's class name, empty if there was none."""
        label = stop_label(stop_reason)
        self._metrics.end_turn(self._engine, label, time.monotonic() - self._started)
        if self._trace:
            self._trace.end(label, totals, error_type)


class Telemetry:
    """Observes turns, for metrics and, if they are on, traces."""

    def __init__(self, metrics: TurnMetrics | None = None, tracing: Tracing | None = None) -> None:
        self._metrics = metrics or TurnMetrics(CollectorRegistry())
        self._tracing = tracing

    def turn_failed_before_its_begin(self) -> None:
        """Counts a turn that failed while it waited for its session."""
        self._metrics.count_unbegun_failure()

    def begin_turn(self, engine: str, session_id: str, turn_id: str) -> TurnTelemetry:
        """A turn begins, for the current call."""
        caller = CALLERS_TRACE.get()
        trace = self._tracing.begin_turn(caller, engine, session_id, turn_id) if self._tracing else None
        return TurnTelemetry(engine, self._metrics, trace, trace.trace_id if trace else caller.trace_id)
