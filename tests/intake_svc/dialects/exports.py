"""What producers really sent, as exports of OTLP: one line of samples/*.jsonl is one log record or span.

Ids are random and long texts replaced by their length. Files that a producer sent both signals in have both.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from onrecord.audit.v1 import audit_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from intake_svc.dialects import Reading, joined, read_logs, read_spans

SAMPLES = sorted(path.stem for path in (Path(__file__).parent / "samples").glob("*.jsonl"))


@dataclass(frozen=True)
class Export:
    """The log records and the spans of a sample. Either may be empty."""

    logs: ResourceLogs
    spans: ResourceSpans

    def copy(self) -> "Export":
        logs, spans = ResourceLogs(), ResourceSpans()
        logs.CopyFrom(self.logs)
        spans.CopyFrom(self.spans)
        return Export(logs, spans)


@cache
def _lines(name: str) -> tuple[dict[str, Any], ...]:
    text = (Path(__file__).parent / "samples" / f"{name}.jsonl").read_text()
    return tuple(json.loads(line) for line in text.splitlines())


def export_of(lines: Sequence[dict[str, Any]]) -> Export:
    """An export of lines of samples, whose resource is that of the first line that has one."""
    logs, spans = ResourceLogs(), ResourceSpans()
    for message, kind, scopes, items in (
        (logs, "log", "scopeLogs", "logRecords"),
        (spans, "span", "scopeSpans", "spans"),
    ):
        own = [line for line in lines if kind in line]
        if not own:
            continue
        document = {scopes: [], "resource": next(line["resource"] for line in own if line["resource"])}
        for line in own:
            document[scopes].append({"scope": line["scope"], items: [line[kind]]})
        json_format.ParseDict(document, message)
    return Export(logs, spans)


@cache
def _sample(name: str) -> Export:
    return export_of(_lines(name))


def sample(name: str) -> Export:
    """A sample, as a copy that may be changed."""
    return _joined(_sample(name).copy())


def _joined(export: Export) -> Export:
    """As exporters send it: the items of one scope together."""
    for scopes, field in ((export.logs.scope_logs, "log_records"), (export.spans.scope_spans, "spans")):
        at = 0
        while at + 1 < len(scopes):
            if scopes[at].scope == scopes[at + 1].scope:
                getattr(scopes[at], field).extend(getattr(scopes[at + 1], field))
                del scopes[at + 1]
            else:
                at += 1
    return export


def read(export: Export) -> Reading:
    """The rows of both signals."""
    return joined([read_logs(export.logs), read_spans(export.spans)])


def text(key: str, value: str) -> KeyValue:
    """An attribute that is a text."""
    return KeyValue(key=key, value=AnyValue(string_value=value))


def put(items, **values: str | int | bool | None) -> None:
    """Sets attributes, whose names have `__` in the place of dots; None takes one away."""
    for name, value in values.items():
        key = name.replace("__", ".")
        kept = [item for item in items if item.key != key]
        del items[:]
        items.extend(kept)
        match value:
            case None:
                continue
            case bool():
                items.append(KeyValue(key=key, value=AnyValue(bool_value=value)))
            case int():
                items.append(KeyValue(key=key, value=AnyValue(int_value=value)))
            case str():
                items.append(text(key, value))


def log_records(export: Export, event: str):
    """The log records whose event.name is given."""
    return [
        record
        for scope in export.logs.scope_logs
        for record in scope.log_records
        if any(item.key == "event.name" and item.value.string_value == event for item in record.attributes)
    ]


def spans_with(export: Export, key: str, value: str):
    """The spans that have an attribute with a value."""
    return [
        span
        for scope in export.spans.scope_spans
        for span in scope.spans
        if any(item.key == key and item.value.string_value == value for item in span.attributes)
    ]


def counts(row: audit_pb2.CostRow) -> tuple[int, int, int, int]:
    """The tokens of a request: input, output, cached and reasoning."""
    return (row.input_tokens, row.output_tokens, row.cached_input_tokens, row.reasoning_tokens)
