"""When calls began and how they ended, where spans and records say it badly: never a success that nobody told."""

import pytest
from onrecord.common.v1 import common_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.intake_svc.dialects.exports import Export, log_records, put, read, sample, spans_with

FAILED, INTERRUPTED = common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_INTERRUPTED
GENAI, OPENINFERENCE, OPENCODE = "pydantic-ai-2.68.0", "openai-agents-0.24.0-openinference-2.6.0", "opencode-1.18.33"
MARKS = {
    GENAI: ("gen_ai.operation.name", "execute_tool"),
    OPENINFERENCE: ("openinference.span.kind", "TOOL"),
    OPENCODE: ("ai.operationId", "ai.toolCall"),
    "ai-sdk-6.0.326": ("ai.operationId", "ai.toolCall"),
    "traceloop-sdk-0.62.4": ("traceloop.span.kind", "tool"),
}
PRODUCERS = pytest.mark.parametrize("name", MARKS)
BEGAN_MS = 1_795_000_000_000
SECOND_NS = 10**9


def a_call(name: str) -> tuple[Export, Span]:
    """A sample with one call, and its span, which took a second."""
    export = sample(name)
    _, *others = spans_with(export, *MARKS[name])
    for scope in export.spans.scope_spans:
        for other in [span for span in scope.spans if span in others]:
            scope.spans.remove(other)
    (span,) = spans_with(export, *MARKS[name])
    span.start_time_unix_nano = BEGAN_MS * 1_000_000
    span.end_time_unix_nano = span.start_time_unix_nano + SECOND_NS
    return export, span


@PRODUCERS
@pytest.mark.parametrize("status", [3, 7, -1])
def test_a_status_that_is_not_known_is_no_success(name, status):
    export, span = a_call(name)
    span.status.code = status
    (row,) = read(export).calls

    assert (row.outcome, row.duration_ms) == (INTERRUPTED, 1_000)


@PRODUCERS
def test_a_span_that_has_not_ended_is_no_success(name):
    export, span = a_call(name)
    span.end_time_unix_nano = 0
    (row,) = read(export).calls

    assert (row.outcome, row.created_at_ms, row.duration_ms) == (INTERRUPTED, BEGAN_MS, 0)


@PRODUCERS
def test_a_call_during_which_the_clock_was_set_back_is_a_row(name):
    export, span = a_call(name)
    span.end_time_unix_nano = span.start_time_unix_nano - SECOND_NS
    (row,) = read(export).calls

    assert (row.outcome, row.created_at_ms, row.duration_ms) == (common_pb2.OUTCOME_SUCCEEDED, BEGAN_MS, 0)


@PRODUCERS
def test_one_time_stands_for_both(name):
    export, span = a_call(name)
    span.start_time_unix_nano = 0
    (row,) = read(export).calls

    assert (row.created_at_ms, row.duration_ms) == (BEGAN_MS + 1_000, 0)


@PRODUCERS
def test_an_exception_without_a_status_is_a_failure(name):
    export, span = a_call(name)
    span.ClearField("status")
    del span.events[:]
    put(span.events.add(name="exception").attributes, exception__type="ValueError")
    (row,) = read(export).calls

    assert (row.outcome, row.error) == (FAILED, "the agent tells of ValueError")


@pytest.mark.parametrize(
    ("name", "mark", "value"),
    [
        (GENAI, "gen_ai.operation.name", "chat"),
        (OPENINFERENCE, "openinference.span.kind", "LLM"),
        ("claude-code-2.1.197-logs-and-traces-details", "span.type", "llm_request"),
    ],
)
@pytest.mark.parametrize("said_by", ["an exception", "error.type"])
def test_a_request_with_an_error_and_without_a_status_failed(name, mark, value, said_by):
    export = sample(name)
    span = spans_with(export, mark, value)[0]
    span.ClearField("status")
    if said_by == "an exception":
        put(span.events.add(name="exception").attributes, exception__type="ValueError")
    else:
        put(span.attributes, **{"error_type" if mark == "span.type" else "error__type": "ValueError"})

    assert sorted(filter(None, (row.error for row in read(export).costs))) == ["request_failed"]


@pytest.mark.parametrize("name", [GENAI, OPENINFERENCE])
def test_the_type_of_an_error_without_a_status_is_a_failure(name):
    export, span = a_call(name)
    span.ClearField("status")
    put(span.attributes, error__type="ValueError")
    (row,) = read(export).calls

    assert (row.outcome, row.error) == (FAILED, "the agent tells of ValueError")


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("success", common_pb2.OUTCOME_SUCCEEDED),
        ("ok", common_pb2.OUTCOME_SUCCEEDED),
        ("failure", FAILED),
        ("error", FAILED),
        ("a_new_word", INTERRUPTED),
    ],
)
def test_a_word_for_a_calls_status_that_is_not_known_is_no_success(word, outcome):
    export = sample("strands-agents-1.62.0")
    (span,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    put(span.attributes, gen_ai__tool__status=word)

    assert [row.outcome for row in read(export).calls] == [outcome]


@pytest.mark.parametrize("duration", [2**60, "9" * 18])
def test_a_record_with_a_duration_that_cannot_be_is_a_row_without_one(duration):
    export = sample("gemini")
    put(log_records(export, "gemini_cli.tool_call")[0].attributes, duration_ms=duration)
    reading = read(export)

    assert reading.not_understood == ()
    assert [row.duration_ms for row in reading.calls] == [0]
    assert reading.calls[0].created_at_ms > BEGAN_MS
