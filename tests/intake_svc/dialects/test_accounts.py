"""What several spans or events tell of is one row, and what cannot be one is told: nothing counts twice."""

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects import read_logs
from tests.intake_svc.dialects.exports import Export, counts, log_records, put, read, sample, spans_with


@pytest.mark.parametrize(
    "name",
    [
        "copilot",
        "pydantic-ai-2.68.0",
        "google-adk-2.13.0",
        "strands-agents-1.62.0",
        "openai-agents-0.24.0-otel-v2-0.1.0",
    ],
)
def test_the_sums_of_an_agents_span_are_not_counted(name):
    export = sample(name)
    (agent,) = spans_with(export, "gen_ai.operation.name", "invoke_agent")
    put(agent.attributes, gen_ai__usage__input_tokens=22, gen_ai__usage__output_tokens=14, gen_ai__request__model="m")

    assert len(read(export).costs) == 2


def test_a_call_over_mcp_is_one_row_of_the_spans_of_its_client_its_server_and_its_agent():
    export = sample("pydantic-ai-2.68.0")
    spans = export.spans.scope_spans.add().spans  # of another scope, as other instrumentations are
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    for kind, span_id, parent in (
        (Span.SPAN_KIND_CLIENT, b"client12", tool.span_id),
        (Span.SPAN_KIND_SERVER, b"server12", b"client12"),
    ):
        span = spans.add(trace_id=tool.trace_id, span_id=span_id, parent_span_id=parent, kind=kind)
        span.start_time_unix_nano, span.end_time_unix_nano = tool.start_time_unix_nano, tool.end_time_unix_nano
        put(span.attributes, mcp__method__name="tools/call", gen_ai__tool__name="add")
    put(spans[-1].attributes, gen_ai__operation__name="execute_tool")

    assert [row.tool_name for row in read(export).calls] == ["add"]


def test_a_request_that_the_models_client_tells_of_too_is_the_agents():
    export = sample("pydantic-ai-2.68.0")
    chat = spans_with(export, "gen_ai.operation.name", "chat")[0]
    inner = export.spans.scope_spans.add().spans.add()
    inner.CopyFrom(chat)
    inner.span_id, inner.parent_span_id = b"client12", chat.span_id
    put(inner.attributes, gen_ai__agent__call__id=None)
    before, after = read(sample("pydantic-ai-2.68.0")), read(export)

    assert after.costs == before.costs
    assert after.ignored == before.ignored + 1


def test_a_call_of_pydantic_ai_is_told_by_the_tools_name_alone_in_its_older_formats():
    """Its formats 1 and 2, which were the default before version 2, have no gen_ai.operation.name."""
    export = sample("pydantic-ai-2.68.0")
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    put(tool.attributes, gen_ai__operation__name=None)
    mcp = export.spans.scope_spans.add().spans.add(
        trace_id=tool.trace_id, span_id=b"client12", kind=Span.SPAN_KIND_CLIENT
    )
    mcp.parent_span_id = tool.span_id
    mcp.start_time_unix_nano, mcp.end_time_unix_nano = tool.start_time_unix_nano, tool.end_time_unix_nano
    put(mcp.attributes, mcp__method__name="tools/call", gen_ai__tool__name="add")

    assert read(export).calls == read(sample("pydantic-ai-2.68.0")).calls


def test_adks_span_of_the_answers_of_several_calls_is_no_call():
    export = sample("google-adk-2.13.0")
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    merged = export.spans.scope_spans[0].spans.add()
    merged.CopyFrom(tool)
    merged.span_id = b"merged12"
    put(merged.attributes, gen_ai__tool__name="(merged tools)", gen_ai__tool__call__id="an-event")

    assert read(export).calls == read(sample("google-adk-2.13.0")).calls


def test_a_request_whose_ids_are_zeros_is_not_taken_for_one_around_itself():
    export = sample("pydantic-ai-2.68.0")
    for span in spans_with(export, "gen_ai.operation.name", "chat"):
        span.span_id = span.parent_span_id = bytes(8)

    assert len(read(export).costs) == 2


@pytest.mark.parametrize("name", ["gemini", "qwen-code"])
@pytest.mark.parametrize("other", [{"content_length": "7"}, {"success": "false"}, {}], ids=["size", "end", "alike"])
def test_calls_that_end_in_the_same_millisecond_are_as_many_rows(name, other):
    """They have no ids, and an agent that runs calls side by side tells of all when the last has ended."""
    export = sample(name)
    event = "gemini_cli.tool_call" if name == "gemini" else "qwen-code.tool_call"
    second = export.logs.scope_logs[0].log_records.add()
    second.CopyFrom(log_records(export, event)[0])
    put(second.attributes, **other)
    rows, again = read(export).calls, read(export).calls

    assert len({row.id for row in rows}) == 2
    assert rows == again


@pytest.mark.parametrize("name", ["gemini", "qwen-code"])
def test_requests_that_end_in_the_same_millisecond_are_as_many_rows(name):
    export = sample(name)
    before = {row.id for row in read(export).costs}
    event = "gemini_cli.api_response" if name == "gemini" else "qwen-code.api_response"
    export.logs.scope_logs[0].log_records.add().CopyFrom(log_records(export, event)[0])

    assert len({row.id for row in read(export).costs} - before) == 1


def test_calls_of_spans_without_ids_are_as_many_rows():
    export = sample("openai-agents-0.24.0-otel-v2-0.1.0")  # which has no ids of calls either
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    tool.span_id = bytes(8)
    export.spans.scope_spans[0].spans.add().CopyFrom(tool)

    assert len({row.id for row in read(export).calls}) == 2


def test_of_two_accounts_of_a_request_by_the_conventions_the_one_with_tokens_counts():
    export = sample("pydantic-ai-2.68.0")
    chat = spans_with(export, "gen_ai.operation.name", "chat")[0]
    inner = export.spans.scope_spans.add().spans.add()
    inner.CopyFrom(chat)
    inner.span_id, inner.parent_span_id = b"client12", chat.span_id
    put(chat.attributes, gen_ai__usage__input_tokens=None, gen_ai__usage__output_tokens=None)

    assert sorted(map(counts, read(export).costs)) == sorted(map(counts, read(sample("pydantic-ai-2.68.0")).costs))


@pytest.mark.parametrize("operation", ["execute_tool", "chat"])
def test_a_span_of_an_operation_that_is_not_known_is_told(operation):
    export = sample("pydantic-ai-2.68.0")
    span = spans_with(export, "gen_ai.operation.name", operation)[0]
    put(span.attributes, gen_ai__operation__name="a_new_operation")
    told = "genai: it has a tool, tokens or a model, and an operation that is not known"

    assert read(export).not_understood == (told,)


def test_a_call_over_mcp_without_an_agents_span_is_the_clients():
    export = sample("pydantic-ai-2.68.0")
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    put(tool.attributes, gen_ai__operation__name=None, mcp__method__name="tools/call", error__type="tool_error")
    tool.kind = Span.SPAN_KIND_CLIENT
    (row,) = read(export).calls

    assert (row.tool_name, row.error) == ("add", "the agent tells of tool_error")


def test_spans_of_no_known_producer_are_told_unless_they_stand_beside_those_of_one():
    unknown = sample("pydantic-ai-2.68.0")
    for span in unknown.spans.scope_spans[0].spans:
        del span.attributes[:]
    beside = sample("pydantic-ai-2.68.0")
    beside.spans.scope_spans[0].spans.add(name="GET /")

    assert read(unknown).not_understood == ("no dialect is known by which the producer speaks",) * 4
    assert (read(beside).not_understood, read(beside).ignored) == ((), 2)


@pytest.mark.parametrize("mark", ["langfuse.observation.type", "mlflow.spanType", "lmnr.span.type"])
def test_spans_of_agents_that_no_dialect_is_for_are_told_also_beside_those_of_one(mark):
    export = sample("pydantic-ai-2.68.0")
    put(export.spans.scope_spans.add().spans.add(name="a tool").attributes, **{mark.replace(".", "__"): "tool"})

    assert read(export).not_understood == ("no dialect is known by which the producer speaks",)


def test_events_of_copilot_in_vs_code_repeat_its_spans_and_are_no_hole():
    logs = ResourceLogs()
    record = logs.scope_logs.add(scope={"name": "copilot-chat"}).log_records.add()
    put(record.attributes, event__name="copilot_chat.tool.call", gen_ai__tool__name="read_file", success=True)

    assert (read_logs(logs).not_understood, read_logs(logs).ignored) == ((), 1)


@pytest.mark.parametrize(
    ("name", "mark", "value", "kept"),
    [
        ("langchain-1.5.2-openinference-0.1.80", "openinference.span.kind", "LLM", "llm.token_count.prompt"),
        ("langchain-core-1.8.3-traceloop-0.62.4", "gen_ai.operation.name", "chat", ""),
        ("pydantic-ai-2.68.0", "gen_ai.operation.name", "chat", "gen_ai.usage.input_tokens"),
    ],
)
def test_a_span_that_lost_what_it_is_known_by_is_told(name, mark, value, kept):
    """An SDK keeps 128 attributes of a span, and in Python the last ones: each message of a request has some."""
    export = sample(name)
    span = spans_with(export, mark, value)[0]
    requests = len(read(export).costs)
    for item in [item for item in span.attributes if item.key != kept]:
        span.attributes.remove(item)
    span.dropped_attributes_count = 12
    reading = read(export)

    assert len(reading.costs) == requests - 1
    (told,) = reading.not_understood
    assert told.endswith("set OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT to more where it comes from")


def inner_request(export: Export, outer: Span, scope: str) -> Span:
    """The account of the model's client of a request that its framework tells of."""
    inner = export.spans.scope_spans.add(scope={"name": scope}).spans.add()
    inner.CopyFrom(outer)
    inner.span_id, inner.parent_span_id = b"client12", outer.span_id
    return inner


@pytest.mark.parametrize("name", ["langchain-1.5.2-openinference-0.1.80", "openai-agents-0.24.0-openinference-2.6.0"])
@pytest.mark.parametrize(
    "scope", ["openinference.instrumentation.openai", "@arizeai/openinference-instrumentation-openai"]
)
def test_a_request_that_two_instrumentations_of_openinference_tell_of_is_one(name, scope):
    """Phoenix's auto_instrument puts in one for each library that is there."""
    export = sample(name)
    inner_request(export, spans_with(export, "openinference.span.kind", "LLM")[0], scope)
    before, after = read(sample(name)), read(export)

    assert after.costs == before.costs
    assert after.ignored == before.ignored + 1


def test_embeddings_by_openinference_are_one_request():
    export = sample("langchain-1.5.2-openinference-0.1.80")
    outer = spans_with(export, "openinference.span.kind", "LLM")[0]
    inner = inner_request(export, outer, "openinference.instrumentation.openai")
    names = {"llm__model_name": None, "llm__token_count__completion": None}
    for span in (outer, inner):
        put(span.attributes, openinference__span__kind="EMBEDDING", embedding__model_name="e", **names)
    put(outer.attributes, llm__token_count__prompt=None)
    (row,) = [row for row in read(export).costs if row.model == "e"]

    assert row.input_tokens == 11


def test_of_two_accounts_of_a_request_the_one_with_tokens_counts():
    export = sample("langchain-1.5.2-openinference-0.1.80")
    outer = spans_with(export, "openinference.span.kind", "LLM")[0]
    inner_request(export, outer, "openinference.instrumentation.openai")
    counted = {"llm__token_count__prompt": None, "llm__token_count__completion": None}
    put(outer.attributes, **counted)
    before, after = read(sample("langchain-1.5.2-openinference-0.1.80")), read(export)

    assert sorted(map(counts, after.costs)) == sorted(map(counts, before.costs))


def test_a_request_of_an_older_litellm_is_known_by_its_type():
    export = sample("litellm-1.110.2")
    for span in export.spans.scope_spans[0].spans:
        usage = {"gen_ai__usage__prompt_tokens": 11, "gen_ai__usage__completion_tokens": 7}
        put(span.attributes, litellm__call_id=None, gen_ai__operation__name=None, **usage)
        put(span.attributes, gen_ai__usage__input_tokens=None, gen_ai__usage__output_tokens=None)

    assert [counts(row)[:2] for row in read(export).costs] == [(11, 7)]


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [("gen_ai.tool.name", "genai: it names no tool"), (None, "genai: it has no times that a row could have")],
)
def test_a_call_that_cannot_be_a_row_is_told(attribute, reason):
    export = sample("pydantic-ai-2.68.0")
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    if attribute:
        put(tool.attributes, **{attribute.replace(".", "__"): None})
    else:
        tool.start_time_unix_nano, tool.end_time_unix_nano = 5, 1_790_000_000_000  # in milliseconds
    reading = read(export)

    assert reading.not_understood == (reason,)
    assert len(reading.costs) == 2
