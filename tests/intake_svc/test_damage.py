"""One damaged span, record or text costs nothing of what came with it."""

import copy
import gzip
import json
import sys
from types import FrameType
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from intake_svc.salvage import with_valid_texts
from tests.intake_svc.conftest import wait_for
from tests.intake_svc.exports import JSON, PROTOBUF, calls, otlp_json, post, post_json, send, within

WITHIN_A_CHARACTER = "é".encode()[:1]


def spans_of(document: Any) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return spans


def pair(session: str) -> Any:
    """Two calls, of which a test damages the second."""
    return json.loads(otlp_json(calls(2, session)))


def arrived(house, session: str, count: int) -> None:
    def look() -> bool:
        return len([row for row in house.rows() if row["session_id"] == session]) == count

    wait_for(look)


@pytest.mark.parametrize("kind", ["protobuf", "grpc"])
def test_a_text_that_was_cut_within_a_character_costs_no_call(shared, kind):
    """Exporters cut values at a number of bytes; protobuf then refuses the message, and all that came in it."""
    house, door = shared
    session = f"cut-{kind}"
    export = calls(3, session, content="x" * 20 + "FIVES").SerializeToString()
    export = export.replace(b"FIVES", b"FIVE" + WITHIN_A_CHARACTER, 2)
    if kind == "grpc":
        send(door.grpc, export)
    else:
        assert post(door.http, "/v1/traces", gzip.compress(export), headers={"Content-Encoding": "gzip"})[0] == 200
    arrived(house, session, 3)


@pytest.mark.parametrize(
    ("sent", "mended"),
    [
        (b"caf\xc3\xa9 \xc3", "caf\xe9 ?"),
        (b"\xe2\x82 \xf0\x9f\x98\x80", "?? \U0001f600"),
        (b"\xed\xa0\x80", "???"),
        (b"\xc3\xa9" + b"\xff" * 20, "?" * 22),
    ],
)
def test_a_text_keeps_its_length_and_loses_what_is_no_character(sent, mended):
    name = within(1, within(2, within(2, within(5, sent))))
    export = ExportTraceServiceRequest.FromString(with_valid_texts(name, ExportTraceServiceRequest.DESCRIPTOR))
    assert export.resource_spans[0].scope_spans[0].spans[0].name == mended


def lines_to_mend(count: int) -> int:
    """How many lines of Python are run to mend one text of one of so many spans."""
    export = calls(count, content="FIVES").SerializeToString().replace(b"FIVES", b"FIVE" + WITHIN_A_CHARACTER, 1)
    lines = 0

    def step(_frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        mended = with_valid_texts(export, ExportTraceServiceRequest.DESCRIPTOR)
    finally:
        sys.settrace(before)
    assert len(ExportTraceServiceRequest.FromString(mended).resource_spans[0].scope_spans[0].spans) == count
    return lines


def test_a_text_that_is_mended_has_no_other_span_walked_through():
    """Python takes hundreds of times as long for a span as protobuf's own parser."""
    assert (lines_to_mend(200) - lines_to_mend(100)) / 100 < 100


def test_half_a_character_in_json_costs_no_call(shared):
    """JavaScript cuts texts between the two halves of a character, and writes the half that is left as an escape."""
    house, door = shared
    document = pair("half")
    spans_of(document)[1] |= {"name": "cut \ud83d"}
    spans_of(document)[1]["attributes"].append({"key": "ai.prompt", "value": {"stringValue": "cut \ud83d"}})
    spans_of(document)[1]["\ud83d"] = document["\ud83d"] = "of a name"
    assert post_json(door.http, "/v1/traces", document) == (200, {})
    arrived(house, "half", 2)


def test_half_a_character_in_metrics_is_no_reason_to_refuse_them(shared):
    _, door = shared
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "\ud83d", "\ud83d": 1}]}]}]}
    assert post_json(door.http, "/v1/metrics", metrics) == (200, {})


def test_json_that_is_not_utf8_costs_no_call(shared):
    house, door = shared
    document = pair("latin")
    spans_of(document)[0]["name"] = "é"
    body = json.dumps(document, ensure_ascii=False).encode("latin-1")
    assert post(door.http, "/v1/traces", body, JSON)[0] == 200
    arrived(house, "latin", 2)


VALUES = {"a fraction": {"intValue": 1.5}, "too large": {"intValue": "9" * 20}, "a word": {"doubleValue": "much"}}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cannot_be_costs_the_attribute_alone(shared, name):
    house, door = shared
    document = pair(name.replace(" ", "-"))
    other = {"key": "an.attribute", "value": VALUES[name]}
    spans_of(document)[1]["attributes"].append(other)
    document["resourceSpans"][0]["resource"] = {"attributes": [other]}
    assert post_json(door.http, "/v1/traces", document) == (200, {})
    arrived(house, name.replace(" ", "-"), 2)


SPANS: dict[str, dict[str, Any]] = {
    "a date for a time": {"startTimeUnixNano": "2026-11-30T00:00:00Z"},
    "a time before all": {"startTimeUnixNano": "-5"},
    "an id of the form of UUIDs": {"traceId": "5b8efff7-9803-8103-d269-b633813fc60c"},
    "an id in base64": {"spanId": "7uGbfsOxsXQ="},
    "attributes that are no list": {"attributes": {"gen_ai.operation.name": "execute_tool"}},
}


@pytest.mark.parametrize("name", SPANS)
def test_a_span_that_cannot_be_read_is_told_and_costs_itself_alone(shared, name):
    house, door = shared
    session = name.replace(" ", "-")
    document = pair(session)
    alone = copy.deepcopy(document)
    spans_of(document)[1] |= SPANS[name]
    code, answer = post_json(door.http, "/v1/traces", document)
    assert (code, answer["partialSuccess"]["rejectedSpans"]) == (200, "1")
    assert answer["partialSuccess"]["errorMessage"] in (
        "its JSON cannot be read",
        "an id is not hexadecimal, as OTLP's JSON has them",
    )
    arrived(house, session, 1)

    del spans_of(alone)[1]
    spans_of(alone)[0] |= SPANS[name]
    assert post_json(door.http, "/v1/traces", alone)[0] == 400  # of which there is nothing to take


SPAN_LIST = {"spans": {"traceId": "5b8efff798038103d269b633813fc60c"}}
BESIDE: dict[str, Any] = {
    "null": None,
    "a number": 5,
    "scopes that are no list": {"scopeSpans": 5},
    "a scope that is null": {"scopeSpans": [None]},
    "spans that are no list": {"scopeSpans": [SPAN_LIST]},
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_resource_or_scope_that_cannot_be_read_is_told_and_costs_itself_alone(shared, name):
    """Exporters do not send again what is refused with 400."""
    house, door = shared
    session = f"beside-{name}".replace(" ", "-")
    document = pair(session)
    document["resourceSpans"].insert(0, BESIDE[name])
    code, answer = post_json(door.http, "/v1/traces", document)
    assert (code, answer["partialSuccess"]["rejectedSpans"]) == (200, "1")
    arrived(house, session, 2)

    assert post_json(door.http, "/v1/traces", {"resourceSpans": [BESIDE[name]]})[0] == 400


AROUND: dict[str, dict[str, Any]] = {
    "a schema that is a number": {"schemaUrl": 7},
    "a resource that is a number": {"resource": 5},
    "attributes of a resource that are no list": {"resource": {"attributes": 5}},
    "a scope that is a text": {"scope": "an-agent"},
    "a name of a scope that is a number": {"scope": {"name": 5, "attributes": [5]}},
}


@pytest.mark.parametrize("name", AROUND)
def test_what_is_around_spans_and_cannot_be_read_costs_none_of_them(shared, name):
    house, door = shared
    session = name.replace(" ", "-")
    document = pair(session)
    resource = document["resourceSpans"][0]
    for part in (document, resource, resource["scopeSpans"][0]):
        part |= AROUND[name]
    assert post_json(door.http, "/v1/traces", document) == (200, {})
    arrived(house, session, 2)


def test_the_readable_half_of_a_resource_is_kept(shared):
    house, door = shared
    document = pair("half-a-resource")
    name = {"key": "service.name", "value": {"stringValue": "an-agent"}}
    document["resourceSpans"][0]["resource"] = {"attributes": [name, 5], "droppedAttributesCount": "many"}
    assert post_json(door.http, "/v1/traces", document) == (200, {})
    arrived(house, "half-a-resource", 2)
    assert {row["agent"] for row in house.rows() if row["session_id"] == "half-a-resource"} == {"an-agent"}


def test_metrics_that_cannot_be_read_do_not_have_the_rest_refused(shared):
    _, door = shared
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": 5}, {"name": "tokens"}]}]}]}
    assert post_json(door.http, "/v1/metrics", metrics)[0] == 200


def test_a_record_that_cannot_be_read_is_told_too(shared):
    _, door = shared
    records = [{"timeUnixNano": "soon"}, {"timeUnixNano": "1"}]
    document = {"resourceLogs": [{"scopeLogs": [{"scope": {"name": "gemini-cli"}, "logRecords": records}]}]}
    code, answer = post_json(door.http, "/v1/logs", document)
    assert (code, answer["partialSuccess"]["rejectedLogRecords"]) == (200, "1")


def test_bytes_that_are_no_message_are_still_refused(shared):
    _, door = shared
    export = calls(1, "never").SerializeToString()
    for damaged in (export[:-1], b"\xff" * 40, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"):
        assert post(door.http, "/v1/traces", damaged, PROTOBUF)[0] == 400
    assert ExportTraceServiceResponse.FromString(post(door.http, "/v1/traces", export)[2]) is not None
