"""Tokens and prices come out alike for all producers."""

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.intake_svc.dialects.exports import Export, counts, log_records, put, read, sample, spans_with


def sse_event(export: Export, **values: str | int) -> None:
    """Turns an event of Codex into one that ends a request."""
    record = log_records(export, "codex.sse_event")[0]
    put(record.attributes, event__kind="response.completed", model="gpt-5", **values)


def test_codex_has_one_row_of_the_two_events_that_end_a_request():
    export = sample("codex-0.171.0")
    tokens: dict[str, str | int] = {"input_token_count": "1000", "output_token_count": "20", "cached_token_count": 400}
    sse_event(export, **tokens, reasoning_token_count="5", duration_ms="250")
    sse_event(export)  # the second of the two, which has no counts
    (row,) = read(export).costs

    assert counts(row) == (1000, 20, 400, 5)
    assert (row.model, row.duration_ms, row.created_at_ms) == ("gpt-5", 250, 1_795_839_633_848 - 250)
    assert row.cost_micros > 0


@pytest.mark.parametrize(("status", "rows"), [(200, 0), (429, 1), (500, 1)])
def test_a_request_of_codex_that_a_server_refused_is_a_row(status, rows):
    export = sample("codex-0.171.0")
    put(log_records(export, "codex.api_request")[0].attributes, http__response__status_code=status)

    assert [row.error for row in read(export).costs] == [f"request_failed, HTTP {status}"] * rows


def test_a_request_of_codex_that_reached_no_server_is_a_row_without_the_words_of_the_error():
    """Its source: openai/codex, otel/src/events/session_telemetry.rs (0136a731), record_api_request."""
    export = sample("codex-0.171.0")
    record = log_records(export, "codex.api_request")[0]
    put(record.attributes, http__response__status_code=None, error__message="the words of the network")

    assert [row.error for row in read(export).costs] == ["request_failed"]


def test_an_answer_to_codex_that_broke_off_is_a_request_that_failed():
    """Of the events of one broken answer, response.failed among them, that of its end counts (the same source)."""
    export = sample("codex-0.171.0")
    failed, ended = log_records(export, "codex.sse_event")[:2]
    put(failed.attributes, event__kind="response.failed", error__message="the words of the server")
    put(ended.attributes, event__kind="response.completed", error__message="stream closed", model="gpt-5")
    (row,) = read(export).costs

    assert (row.error, row.usage_incomplete) == ("request_failed", True)


def test_a_failed_request_of_claude_has_its_status_and_no_words():
    export = sample("claude-code-2.1.197-logs")
    record = log_records(export, "api_request")[0]
    tokens = dict.fromkeys(("input_tokens", "output_tokens", "cost_usd_micros", "cost_usd"))
    put(record.attributes, event__name="api_error", status_code="529", error="the words of the server", **tokens)
    row = read(export).costs[0]

    assert row.error == "request_failed, HTTP 529"
    assert row.usage_incomplete
    assert not row.HasField("cost_micros")


@pytest.mark.parametrize(
    ("output", "thoughts", "total", "counted"),
    [
        (7, 2, 18, 7),  # 11 + 7: the thoughts are among the output
        (7, 2, 20, 9),  # 11 + 7 + 2: they are not, as Gemini's API counts
        (7, 2, None, 9),
        (7, 0, 18, 7),
    ],
)
def test_output_of_gemini_has_the_thoughts(output, thoughts, total, counted):
    export = sample("gemini")
    names = {"output_token_count": output, "thoughts_token_count": thoughts, "total_token_count": total}
    for record in log_records(export, "gemini_cli.api_response"):
        put(record.attributes, **names)

    assert {counts(row) for row in read(export).costs} == {(11, counted, 3, thoughts)}


def test_what_claude_reports_is_the_price():
    export = sample("claude-code-2.1.197-logs")
    first, second = log_records(export, "api_request")
    put(first.attributes, cost_usd_micros="999")
    put(second.attributes, cost_usd_micros=None, cost_usd="0.25")

    assert [row.cost_micros for row in read(export).costs] == [999, 250_000]
    assert all(row.cost_reported for row in read(export).costs)


@pytest.mark.parametrize(
    ("dollars", "micros"), [("0.0043200000000000005", 4_320), ("1.5e-05", 15), ("1e-7", 0), ("2E+1", 20_000_000)]
)
def test_a_price_is_read_however_its_number_is_written(dollars, micros):
    """Claude Code's numbers are texts, as JavaScript makes them."""
    export = sample("claude-code-2.1.197-logs")
    for record in log_records(export, "api_request"):
        put(record.attributes, cost_usd_micros=None, cost_usd=dollars)

    assert {(row.cost_micros, row.cost_reported) for row in read(export).costs} == {(micros, True)}


@pytest.mark.parametrize(
    "value",
    [
        AnyValue(string_value="1e99"),
        AnyValue(string_value=str(2**53 + 1)),
        AnyValue(double_value=1e99),
        AnyValue(double_value=float("nan")),
        AnyValue(int_value=2**53 + 1),
        AnyValue(int_value=2**63 - 1),
    ],
    ids=str,
)
def test_a_number_that_no_count_can_be_is_not_told(value):
    """Sums stay at the largest number, so that one such row would spoil the total of all."""
    name, costs = "claude-code-2.1.197-logs", ("cost_usd", "cost_usd_micros")
    odd, without = sample(name), sample(name)
    for event, keys in {
        "api_request": ("input_tokens", "output_tokens", "cache_read_tokens", "duration_ms", *costs),
        "tool_result": ("tool_result_size_bytes", "duration_ms"),
    }.items():
        for key in keys:
            for record in log_records(without, event):
                put(record.attributes, **{key: None})
            for record in log_records(odd, event):
                put(record.attributes, **{key: None})
                record.attributes.add(key=key, value=value)

    assert (read(odd).costs, read(odd).calls) == (read(without).costs, read(without).calls)


def test_a_price_that_no_request_can_have_is_not_told():
    export = sample("claude-code-2.1.197-logs")
    for record in log_records(export, "api_request"):
        put(record.attributes, cost_usd_micros=None, cost_usd="1e10")  # each number that it becomes counts too

    assert not any(row.cost_reported for row in read(export).costs)


def test_without_a_report_the_price_is_that_of_the_list_at_the_time_of_the_request():
    export = sample("pydantic-ai-2.68.0")
    for span in spans_with(export, "gen_ai.operation.name", "chat"):
        put(span.attributes, gen_ai__response__model="gpt-5", gen_ai__usage__input_tokens=1_000_000)
        put(span.attributes, gen_ai__usage__cache_read__input_tokens=0, gen_ai__usage__output_tokens=0)
        put(span.attributes, gen_ai__usage__details__reasoning_tokens=0)

    assert {row.cost_micros for row in read(export).costs} == {1_250_000}


@pytest.mark.parametrize("provider", ["openai", "openai.responses", "azure.ai.openai"])
def test_the_provider_is_that_of_the_list_whatever_the_producer_calls_it(provider):
    export = sample("pydantic-ai-2.68.0")
    for span in spans_with(export, "gen_ai.operation.name", "chat"):
        put(span.attributes, gen_ai__response__model="gpt-4o", gen_ai__provider__name=provider)

    assert all(row.cost_micros > 0 and not row.cost_reported for row in read(export).costs)


def test_a_provider_that_the_list_does_not_know_has_no_price():
    export = sample("pydantic-ai-2.68.0")
    for span in spans_with(export, "gen_ai.operation.name", "chat"):
        put(span.attributes, gen_ai__response__model="gpt-4o", gen_ai__provider__name="nobody")

    assert not any(row.HasField("cost_micros") for row in read(export).costs)


def test_a_producer_that_counts_input_without_the_cache_is_told_by_its_counts():
    export = sample("pydantic-ai-2.68.0")
    for span in spans_with(export, "gen_ai.operation.name", "chat"):
        put(span.attributes, gen_ai__usage__input_tokens=5, gen_ai__usage__cache_read__input_tokens=90)

    assert {counts(row) for row in read(export).costs} == {(95, 7, 90, 2)}
