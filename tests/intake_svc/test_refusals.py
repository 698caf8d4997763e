"""What cannot be taken is refused with a status that says whether to send it again."""

import gzip
import json
import zlib
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from tests.intake_svc.exports import JSON, PROTOBUF, calls, gzipped_zeros, post, post_json, send, within

MIB = 2**20
DEEP = b'{"resourceSpans":' * 5_000 + b"1" + b"}" * 5_000
SPAN = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "name": "GET /"}


def in_a_value(payload: bytes, depth: int) -> bytes:
    """An attribute of a resource: a list in a list, and so on."""
    for _ in range(depth):
        payload = within(5, within(1, payload))
    return within(1, within(1, within(1, within(2, payload))))


GZIP = {"Content-Encoding": "gzip"}
CASES: dict[str, tuple[bytes, str, dict[str, str], int]] = {
    "no protobuf": (b"\xff\xff", PROTOBUF, {}, 400),
    "half a document": (b"{", JSON, {}, 400),
    "a list": (b"[1]", JSON, {}, 400),
    "an empty list": (b"[]", JSON, {}, 400),
    "a text": (b'"x"', JSON, {}, 400),
    "no export": (b'{"a": 1}', JSON, {}, 400),
    "another signal": (b'{"resourceMetrics": []}', JSON, {}, 400),
    "a number for a list": (b'{"resourceSpans": 5}', JSON, {}, 400),
    "no hexadecimal": (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', JSON, {}, 400),
    "a deep document": (DEEP, JSON, {}, 400),
    "many values": (b"[" + b"[]," * 300_000 + b"[]]", JSON, {}, 413),
    "another type": (b"x", "text/plain", {}, 415),
    "another encoding": (b"x", PROTOBUF, {"Content-Encoding": "br"}, 415),
    "no gzip": (b"no gzip", PROTOBUF, GZIP, 400),
    "gzip that is cut": (gzip.compress(b"")[:-1], PROTOBUF, GZIP, 400),
    "gzip of two pieces": (gzip.compress(b"") * 2, PROTOBUF, GZIP, 400),
    "a bomb": (gzipped_zeros(65 * MIB), PROTOBUF, GZIP, 413),
    "a hundred megabytes": (b"", PROTOBUF, {"Content-Length": str(100 * MIB)}, 413),
    "many resources": (b"\x0a\x02\x12\x00" * 20_000, PROTOBUF, {}, 400),
    "a deep value": (in_a_value(bytes(MIB), 3000), PROTOBUF, {}, 400),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_body_that_cannot_be_taken_is_refused_for_good(shared, name):
    _, door = shared
    body, kind, headers, status = CASES[name]
    code, _, answer = post(door.http, "/v1/traces", body, kind, headers)
    assert code == status
    assert json.loads(answer)["message"] if kind == JSON else status_pb2.Status.FromString(answer).message


def test_a_resource_may_have_more_spans_than_a_request_of_ours_has_parts(shared):
    _, door = shared
    send(door.grpc, within(1, within(2, within(2, b"\x2a\x02of") * 13_000)))


@pytest.mark.long
def test_spans_without_content_of_their_own_are_counted_before_they_are_parsed(shared):
    """Two bytes become a hundred: a million parts are taken, more are not."""
    _, door = shared
    export = within(1, within(2, b"\x12\x00" * 1_100_000))
    assert post(door.http, "/v1/traces", export)[0] == 413
    with pytest.raises(grpc.RpcError) as refused:
        send(door.grpc, export)
    assert code_of(refused) is grpc.StatusCode.INVALID_ARGUMENT


def code_of(refused: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = refused.value.code()
    return code


def test_json_with_an_id_that_is_not_hexadecimal_is_told_from_what_is_no_json(shared):
    _, door = shared
    code, answer = post_json(
        door.http, "/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "z"}]}]}]}
    )
    assert (code, "hexadecimal" in answer["message"]) == (400, True)
    log = door.service.stderr_text()
    assert '"peer": "127.0.0.1"' in log


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "identity"])
def test_each_name_of_an_encoding_is_taken(shared, encoding):
    _, door = shared
    data = calls().SerializeToString()
    packed = data if encoding == "identity" else zlib.compress(data) if encoding == "deflate" else gzip.compress(data)
    assert post(door.http, "/v1/traces", packed, PROTOBUF, {"Content-Encoding": encoding})[0] == 200


def test_the_paths_are_those_of_otlp_and_no_other(shared):
    _, door = shared
    assert post_json(door.http, "/v1/logs", {}) == (200, {})
    assert post_json(door.http, "/v1/logs/", {}) == (200, {})
    assert post(door.http, "/v1/other", b"")[0] == 404
    assert post(door.http, "/", b"")[0] == 404


def test_metrics_are_dropped_without_a_refusal_that_agents_would_tell_their_users(shared):
    _, door = shared
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens")
    metric.sum.data_points.add(as_int=1)
    metric.sum.data_points.add(as_int=2)
    code, _, body = post(door.http, "/v1/metrics", request.SerializeToString())
    answer = ExportMetricsServiceResponse.FromString(body)
    assert (code, answer.HasField("partial_success")) == (200, False)


def test_a_span_of_nobody_known_is_named_in_the_partial_success(shared):
    _, door = shared
    export = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN, SPAN]}]}], "of a later version": 1}
    code, answer = post_json(door.http, "/v1/traces", export)
    assert (code, answer["partialSuccess"]["rejectedSpans"]) == (200, "2")
    assert "2 x no dialect is known" in answer["partialSuccess"]["errorMessage"]


@pytest.mark.long
def test_an_export_over_the_bound_is_refused_over_grpc_too(shared):
    """A hundred megabytes that come as a hundred kilobytes: the bound is on what they become."""
    _, door = shared
    with pytest.raises(grpc.RpcError) as refused:
        send(door.grpc, bytes(100 * MIB), compression=grpc.Compression.Gzip)
    assert code_of(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED
    send(door.grpc, calls())
