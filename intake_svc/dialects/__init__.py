"""Dialects: the names by which each producer of OpenTelemetry says what an audit row or a cost row says.

One module a producer, with its table from attribute to field. An attribute that no table names is never read.
"""

from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from intake_svc.dialects.reading import Reading, SequenceNumber

__all__ = ["Reading", "SequenceNumber", "read_logs", "read_spans"]


def read_spans(resource_spans: ResourceSpans) -> Reading:
    """The rows of the spans of one resource. Never raises, whatever was sent."""
    spans = sum(len(scope.spans) for scope in resource_spans.scope_spans)
    return Reading(not_understood=("the span is of no known producer",) * spans)


def read_logs(resource_logs: ResourceLogs) -> Reading:
    """The rows of the log records of one resource. Never raises, whatever was sent."""
    records = sum(len(scope.log_records) for scope in resource_logs.scope_logs)
    return Reading(not_understood=("the log record is of no known producer",) * records)
