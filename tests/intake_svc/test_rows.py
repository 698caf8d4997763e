"""An answer means that the rows are safe, and what is sent again is stored once."""

import gzip
from itertools import chain
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from intake_svc.dialects import read_logs, read_spans
from intake_svc.dialects.one_source import OneSource
from tests.intake_svc.conftest import DoorProcess, House, wait_for
from tests.intake_svc.dialects import exports as samples
from tests.intake_svc.exports import JSON, calls, otlp_json, post, send

CANARY = "canary-7f3a9c"


def arrived(house: House, session: str, count: int) -> Any:
    """The calls of a session, once there are so many."""
    return wait_for(lambda: found if len(found := of_session(house, session)) >= count else None)


def of_session(house: House, session: str) -> list[dict[str, Any]]:
    return [row for row in house.rows() if row["session_id"] == session]


def send_by(way: str, door: DoorProcess, export: ExportTraceServiceRequest) -> None:
    data = export.SerializeToString()
    match way:
        case "grpc":
            send(door.grpc, export)
        case "grpc-gzip":
            send(door.grpc, export, compression=grpc.Compression.Gzip)
        case "http":
            assert post(door.http, "/v1/traces", data)[0] == 200
        case "http-json":
            assert post(door.http, "/v1/traces", otlp_json(export), JSON)[0] == 200
        case "http-gzip":
            assert post(door.http, "/v1/traces", gzip.compress(data), headers={"Content-Encoding": "gzip"})[0] == 200


WAYS = ("grpc", "grpc-gzip", "http", "http-json", "http-gzip")


def test_what_is_sent_by_each_way_and_by_each_again_is_stored_once(shared):
    house, door = shared
    export = calls(3, session="each-way")
    for way in chain(WAYS, reversed(WAYS)):
        send_by(way, door, export)
    behind = calls(1, session="behind")  # when it has arrived, nothing of those is on its way
    send(door.grpc, behind)
    arrived(house, "behind", 1)
    assert len(of_session(house, "each-way")) == 3


def test_the_samples_of_all_producers_sent_twice_are_stored_once(shared):
    house, door = shared
    expected, source = set(), OneSource()
    for name in samples.SAMPLES:
        export = samples.sample(name)
        for signal, reading in (("traces", read_spans(export.spans)), ("logs", read_logs(export.logs))):
            chosen, _ = source.choose(reading, signal)  # one row of a call that two signals tell of
            source.remember(reading, chosen, signal)
            expected |= {row.id for row in chosen.calls}
        traces = ExportTraceServiceRequest(resource_spans=[export.spans]).SerializeToString()
        logs = ExportLogsServiceRequest(resource_logs=[export.logs]).SerializeToString()
        for _ in range(2):
            assert post(door.http, "/v1/traces", traces)[0] == 200
            assert post(door.http, "/v1/logs", logs)[0] == 200
    assert expected
    wait_for(lambda: expected <= {row["id"] for row in house.rows()})
    stored = [row["id"] for row in house.rows()]
    assert len(stored) == len(set(stored))
    send(door.grpc, calls(1, session="behind-samples"))
    arrived(house, "behind-samples", 1)
    tool_calls, requests = house.rows(), house.rows("cost_log")
    sessions = house.rows("sessions")
    assert {row["session_id"] for row in (*tool_calls, *requests)} == {session["id"] for session in sessions}
    for session in sessions:  # each row once, though each export came twice
        counted = [sum(row["session_id"] == session["id"] for row in rows) for rows in (tool_calls, requests)]
        assert [session["tool_calls"], session["requests"]] == counted
    assert not list(house.state.glob("spool/dead-letters/*.jsonl")), "a row was refused"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "way", "tool_calls", "requests"),
    [
        ("ai-sdk-4.3.19", "grpc", 2, 2),
        ("ai-sdk-5.0.277", "http-json", 2, 3),  # as the SDK of JavaScript sends it
        ("ai-sdk-6.0.326", "http", 2, 3),
        ("traceloop-sdk-0.62.4", "grpc-gzip", 2, 2),
        ("langchain-core-1.8.3-traceloop-0.62.4", "http-gzip", 2, 1),
    ],
)
def test_spans_and_those_around_them_are_stored_as_one_row_each(house, name, way, tool_calls, requests):
    """Those around have the sums of those within."""
    house.start_audit()
    door = house.start_door()
    export = ExportTraceServiceRequest(resource_spans=[samples.sample(name).spans])
    for each in (way, "grpc", way):
        send_by(each, door, export)
    wait_for(lambda: len(house.rows()) >= tool_calls and len(house.rows("cost_log")) >= requests)
    send(door.grpc, calls(1, session="behind"))
    arrived(house, "behind", 1)
    (session,) = [row for row in house.rows("sessions") if row["id"] != "behind"]

    assert [session["tool_calls"], session["requests"]] == [tool_calls, requests]
    assert [session["input_tokens"], session["output_tokens"]] == [11 * requests, 7 * requests]
    assert sorted(row["outcome"] for row in house.rows() if row["session_id"] != "behind") == ["failed", "succeeded"]


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_the_official_sdk_exports_with_its_default_settings(shared, way, monkeypatch):
    house, door = shared
    address = f"http://{door.grpc}" if way == "grpc" else f"http://{door.http}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    spans, logs = TracerProvider(), LoggerProvider()
    spans.add_span_processor(BatchSpanProcessor(GrpcSpans() if way == "grpc" else HttpSpans()))
    logs.add_log_record_processor(BatchLogRecordProcessor(GrpcLogs() if way == "grpc" else HttpLogs()))
    tracer, logger = spans.get_tracer("an-agent"), logs.get_logger("com.anthropic.claude_code.events")
    for number in range(3):
        with tracer.start_as_current_span(
            "execute_tool search",
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "search",
                "gen_ai.tool.call.id": f"{way}-{number}",
                "gen_ai.conversation.id": f"sdk-spans-{way}",
            },
        ):
            pass
    logger.emit(
        event_name="claude_code.tool_result",
        body="claude_code.tool_result",
        attributes={
            "event.name": "tool_result",
            "event.timestamp": "2026-11-20T10:00:00.000Z",
            "event.sequence": 0,
            "session.id": f"sdk-logs-{way}",
            "tool_name": "Bash",
            "tool_use_id": f"toolu-{way}",
            "success": "true",
            "duration_ms": "12",
        },
    )
    spans.shutdown()
    logs.shutdown()
    assert len(arrived(house, f"sdk-spans-{way}", 3)) == 3
    (call,) = arrived(house, f"sdk-logs-{way}", 1)
    assert (call["tool_name"], call["duration_ms"]) == ("Bash", 12)


def test_content_is_nowhere_once_it_was_answered(shared):
    """Neither in the spool nor in the ledger nor in a log, whether it was understood or refused."""
    house, door = shared
    said = {
        "gen_ai.tool.call.arguments": f'{{"query": "{CANARY}"}}',
        "gen_ai.tool.call.result": CANARY,
        "gen_ai.input.messages": CANARY,
        "exception.stacktrace": CANARY,
        CANARY: CANARY,
    }
    export = calls(2, session="quiet", **said)
    export.resource_spans[0].resource.attributes.add(key=CANARY).value.string_value = CANARY
    for span in export.resource_spans[0].scope_spans[0].spans:
        span.name = CANARY
        span.status.message = CANARY
        span.events.add(name=CANARY).attributes.add(key="exception.message").value.string_value = CANARY
    for way in WAYS:
        send_by(way, door, export)
    post(door.http, "/v1/traces", f'{{"resourceSpans": "{CANARY}"}}', JSON)
    post(door.http, f"/v1/{CANARY}", CANARY.encode(), CANARY, {"Content-Encoding": CANARY, "authorization": CANARY})
    arrived(house, "quiet", 2)
    for path in (path for path in house.folder.rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in door.service.stderr_text()
