"""Exports as agents send them, by hand and by the official SDK."""

import base64
import gzip
import http.client
import itertools
import json
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

PROTOBUF, JSON = "application/x-protobuf", "application/json"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
BEGAN_NS = 1_790_000_000_000_000_000
_numbers = itertools.count(1)


def calls(count: int = 1, session: str = "s-1", **attributes: str) -> ExportTraceServiceRequest:
    """An export of tool calls by OpenTelemetry's conventions for generative AI; each has an id of its own."""
    spans = ResourceSpans()
    scope = spans.scope_spans.add()
    scope.scope.name = "an-agent"
    for number in itertools.islice(_numbers, count):
        span = scope.spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name="execute_tool search",
            start_time_unix_nano=BEGAN_NS + number * 1_000_000,
            end_time_unix_nano=BEGAN_NS + number * 1_000_000 + 5_000_000,
        )
        said = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.id": f"call-{number}",
            "gen_ai.conversation.id": session,
            **attributes,
        }
        for key, value in said.items():
            span.attributes.add(key=key).value.string_value = value
    return ExportTraceServiceRequest(resource_spans=[spans])


def otlp_json(export: Message) -> str:
    """An export in OTLP's JSON, where ids are hexadecimal."""

    def hexadecimal(part: Any) -> Any:
        if isinstance(part, list):
            return [hexadecimal(one) for one in part]
        if not isinstance(part, dict):
            return part
        return {
            name: base64.b64decode(value).hex() if name in ("traceId", "spanId", "parentSpanId") else hexadecimal(value)
            for name, value in part.items()
        }

    return json.dumps(hexadecimal(MessageToDict(export)))


def post(
    address: str, path: str, body: Any, kind: str = PROTOBUF, headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """Sends a body over HTTP; returns the status, the headers in lower case and the answer's body."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": kind, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def post_json(address: str, path: str, document: Any) -> tuple[int, Any]:
    """Sends a document; returns the status and the answer's document."""
    status, _, body = post(address, path, json.dumps(document), JSON)
    return status, json.loads(body)


def send(address: str, export: ExportTraceServiceRequest | bytes, **options: Any) -> ExportTraceServiceResponse:
    """Sends an export over gRPC. Raises grpc.RpcError."""
    data = export if isinstance(export, bytes) else export.SerializeToString()
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(EXPORT, response_deserializer=ExportTraceServiceResponse.FromString)
        answer: ExportTraceServiceResponse = call(data, timeout=60, **options)
        return answer


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def within(number: int, payload: bytes) -> bytes:
    """A message or a text in a field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def gzipped_zeros(size: int) -> bytes:
    """A thousandth of size, which becomes size bytes."""
    return gzip.compress(bytes(size), 9)
