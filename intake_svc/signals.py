"""The signals of OTLP: the messages of each, and how it is read.

Source: https://opentelemetry.io/docs/specs/otlp/ and the package opentelemetry-proto.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from intake_svc.dialects import Reading, read_logs, read_spans


@dataclass(frozen=True, slots=True)
class Signal:
    """One of OTLP's kinds of telemetry."""

    name: str
    """As in the path of OTLP over HTTP, /v1/NAME."""
    service: str
    """The full name of its gRPC service, whose one RPC is Export."""
    request: type[Message]
    response: type[Message]
    resources: str
    """The request's one field, which has an element a resource."""
    rejected: str
    """The field of a response's partial_success that counts what was not taken."""
    read: Callable[[Any], Reading]
    """The rows of one resource. Never raises, whatever was sent."""

    @property
    def method(self) -> str:
        """Its RPC, /package.Service/Method."""
        return f"/{self.service}/Export"

    def answer(self, not_taken: int, why: str) -> Message:
        """The response, which says how many spans, log records or data points were not taken, and why."""
        answer: Any = self.response()
        if not_taken:
            setattr(answer.partial_success, self.rejected, not_taken)
            answer.partial_success.error_message = why
        return answer  # type: ignore[no-any-return]  # a message of the signal's own type


def _drop_metrics(resource_metrics: Any) -> Reading:
    metrics: Iterable[Any] = (metric for scope in resource_metrics.scope_metrics for metric in scope.metrics)
    points = sum(len(getattr(metric, kind).data_points) for metric in metrics if (kind := metric.WhichOneof("data")))
    return Reading(ignored=points)  # counted, and not refused: agents tell their users of each refusal


TRACES = Signal(
    "traces",
    trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name,
    trace_service_pb2.ExportTraceServiceRequest,
    trace_service_pb2.ExportTraceServiceResponse,
    "resource_spans",
    "rejected_spans",
    read_spans,
)
LOGS = Signal(
    "logs",
    logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"].full_name,
    logs_service_pb2.ExportLogsServiceRequest,
    logs_service_pb2.ExportLogsServiceResponse,
    "resource_logs",
    "rejected_log_records",
    read_logs,
)
METRICS = Signal(
    "metrics",
    metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"].full_name,
    metrics_service_pb2.ExportMetricsServiceRequest,
    metrics_service_pb2.ExportMetricsServiceResponse,
    "resource_metrics",
    "rejected_data_points",
    _drop_metrics,
)
SIGNALS = (TRACES, LOGS, METRICS)
