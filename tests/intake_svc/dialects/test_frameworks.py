"""Frameworks that say what the conventions for generative AI say by names and words of their own.

The spans follow their sources: google/adk-python (telemetry/tracing.py, 0798a74d), google/adk-java (Tracing.java,
130ae021), spring-projects/spring-ai (ToolCallingObservationDocumentation, 585d1fb8), microsoft/semantic-kernel
(decorators.py, 130f159d), mastra-ai/mastra (gen-ai-semantics.ts, 087c72fa), ag2ai/ag2 (code.py, 9f193500),
crewAIInc/crewAI (telemetry/tracing/handlers.py, 0780f748) and deepset-ai/haystack (components/agents/agent.py of 3.0).
"""

from typing import Any

import pytest
from onrecord.common.v1 import common_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from intake_svc.dialects import read_spans
from tests.intake_svc.dialects.exports import put, read, sample, spans_with
from tests.intake_svc.dialects.test_frames import Trace

OK, FAILED = common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED
UNKNOWN = "genai: it has a tool, tokens or a model, and an operation that is not known"
TOKENS: dict[str, Any] = {"gen_ai__usage__input_tokens": 11, "gen_ai__usage__output_tokens": 7}
ADK_REQUEST: dict[str, Any] = {
    "gen_ai__system": "gcp.vertex.agent",
    "gen_ai__request__model": "gemini-2.5-flash",
    "gcp__vertex__agent__session_id": "s-1",
    **TOKENS,
}
SPRING: dict[str, Any] = {"gen_ai__operation__name": "framework", "gen_ai__system": "spring_ai"}
ADK = "gcp.vertex.agent"


@pytest.mark.parametrize("operation", [None, "call_llm"])
def test_a_request_of_adk_is_known_without_an_operation_of_the_conventions(operation):
    trace = Trace()
    trace.add(ADK, 1, gen_ai__operation__name=operation, **ADK_REQUEST)
    trace.add(ADK, 2, gen_ai__operation__name="execute_tool", gen_ai__tool__name="add")
    reading = read_spans(trace.spans)
    (row,) = reading.costs

    assert (row.session_id, row.model, row.input_tokens, row.output_tokens) == ("s-1", "gemini-2.5-flash", 11, 7)
    assert row.cost_micros > 0
    assert (len(reading.calls), reading.not_understood, reading.ignored) == (1, (), 0)


def test_a_request_of_adk_that_its_model_client_tells_of_too_is_the_one_with_more():
    trace = Trace()
    trace.add(ADK, 1, **ADK_REQUEST)
    inner = ADK_REQUEST | {"gen_ai__operation__name": "generate_content", "gen_ai__usage__cache_read__input_tokens": 3}
    trace.add(ADK, 2, around=1, **inner)
    (row,) = read_spans(trace.spans).costs

    assert row.cached_input_tokens == 3


def test_an_id_that_adk_does_not_specify_is_none():
    export = sample("google-adk-2.13.0")
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    put(tool.attributes, gen_ai__tool__call__id="<not specified>")
    (row,) = read(export).calls

    assert (row.tool_name, row.provider_call_id) == ("add", "")


@pytest.mark.parametrize(
    ("between", "tool", "call_id", "calls"),
    [
        ("chat", "add", "call_1", 1),
        ("chat", "add", "call_2", 2),
        ("chat", "mul", "call_1", 2),
        ("chat", "add", "<not specified>", 2),
        ("chat", "add", None, 2),
        ("invoke_agent", "add", "call_1", 2),
    ],
)
def test_a_call_that_two_instrumentations_tell_of_one_within_the_other_is_one(between, tool, call_id, calls):
    """A call of an agent that is a tool is another, also where the model server gives an id again."""
    trace = Trace()
    outer = call_id if call_id != "call_2" else "call_1"
    trace.add(ADK, 1, gen_ai__operation__name="execute_tool", gen_ai__tool__name="add", gen_ai__tool__call__id=outer)
    trace.add(ADK, 2, around=1, gen_ai__operation__name=between)
    inner: dict[str, Any] = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__call__id": call_id}
    trace.add("another", 3, around=2, **inner, gen_ai__tool__name=tool)

    assert len(read_spans(trace.spans).calls) == calls


def test_the_id_of_a_call_of_adk_for_java():
    trace = Trace()
    trace.add(ADK, 1, gen_ai__operation__name="execute_tool", gen_ai__tool__name="add", gen_ai__tool_call__id="call_1")

    assert [row.provider_call_id for row in read_spans(trace.spans).calls] == ["call_1"]


@pytest.mark.parametrize(
    ("operation", "call_id"),
    [({}, None), ({"gen_ai__operation__name": "execute_tool"}, "call_1")],  # version 1, version 2
)
def test_a_call_of_spring_ai(operation, call_id):
    trace = Trace()
    asked: dict[str, Any] = {"spring__ai__kind": "chat_client", "spring__ai__chat__client__conversation__id": "s-1"}
    trace.add("org.springframework.boot", 1, **SPRING, **asked)
    tool = SPRING | operation | {"spring__ai__kind": "tool_call", "spring__ai__tool__definition__name": "weather"}
    arguments: dict[str, Any] = {
        "spring__ai__tool__call__arguments": '{"city": "Paris"}',
        "spring__ai__tool__call__id": call_id,
    }
    trace.add("org.springframework.boot", 2, around=1, **tool, **arguments)
    reading = read_spans(trace.spans)
    (row,) = reading.calls

    assert (row.tool_name, row.session_id, row.turn_id) == ("weather", "s-1", "0000000000000001")
    assert (row.provider_call_id, row.outcome) == (call_id or "", OK)
    assert row.args_summary == '{"city":{"type":"string","bytes":5}}'
    assert (reading.not_understood, reading.ignored) == ((), 1)


def test_a_tool_that_spring_ai_serves_over_mcp_is_its_clients_call():
    trace = Trace()
    kind: dict[str, Any] = {"spring__ai__kind": "mcp_server_tool_call", "spring__ai__tool__definition__name": "weather"}
    trace.add("org.springframework.boot", 1, gen_ai__operation__name="execute_tool", **kind)

    assert read_spans(trace.spans).calls == ()


def test_a_model_that_micrometer_has_none_for_is_not_told():
    trace = Trace()
    request: dict[str, Any] = {
        "gen_ai__operation__name": "chat",
        "gen_ai__request__model": "gpt-5",
        "gen_ai__response__model": "none",
    }
    trace.add("org.springframework.boot", 1, **request)

    assert [row.model for row in read_spans(trace.spans).costs] == ["gpt-5"]


@pytest.mark.parametrize("operation", ["chat.completions", "text.completions", "embedding"])
def test_requests_by_other_words(operation):
    """Of Semantic Kernel and of Spring AI."""
    trace = Trace()
    trace.add("a-framework", 1, gen_ai__operation__name=operation, gen_ai__request__model="m", **TOKENS)
    reading = read_spans(trace.spans)

    assert [(row.model, row.input_tokens) for row in reading.costs] == [("m", 11)]
    assert reading.not_understood == ()


@pytest.mark.parametrize(("code", "outcome"), [(0, OK), (3, FAILED)])
def test_code_that_ag2_runs_is_a_call(code, outcome):
    trace = Trace()
    failed: dict[str, Any] = {"error__type": "CodeExecutionError"} if code else {}
    trace.add("ag2", 1, gen_ai__operation__name="execute_code", ag2__code_execution__exit_code=code, **failed)
    (row,) = read_spans(trace.spans).calls

    assert (row.tool_name, row.exit_code, row.outcome) == ("execute_code", code, outcome)


@pytest.mark.parametrize(("decision", "calls"), [("reject", 1), ("confirm", 0), ("modify", 0), ("a_new_word", 0)])
def test_a_call_that_haystack_was_told_not_to_make_is_denied(decision, calls):
    trace = Trace()
    hook = "haystack__agent__hook__human_in_the_loop__strategy__"
    check: dict[str, Any] = {f"{hook}type": "haystack.hooks.BlockingConfirmationStrategy", f"{hook}decision": decision}
    trace.add("haystack", 1, haystack__tool__name="weather", haystack__tool__call__id="call_1", **check)
    told = [
        (row.tool_name, row.provider_call_id, row.outcome, row.decision.verdict)
        for row in read_spans(trace.spans).calls
    ]

    assert told == [("weather", "call_1", common_pb2.OUTCOME_DENIED, common_pb2.VERDICT_DENIED)] * calls


def test_a_call_of_haystack_and_no_check_whether_it_is_allowed():
    trace = Trace()
    arguments: dict[str, Any] = {"haystack__agent__step__tool__input": '{"location": "Berlin"}'}
    check: dict[str, Any] = {
        "haystack__agent__hook__human_in_the_loop__strategy__type": "haystack.hooks.BlockingConfirmationStrategy"
    }
    trace.add("haystack", 1, haystack__tool__name="weather", haystack__tool__call__id="call_1", **check)
    trace.add("haystack", 2, haystack__tool__name="weather", **arguments)
    reading = read_spans(trace.spans)
    (row,) = reading.calls

    assert (row.tool_name, row.outcome, row.args_summary) == ("weather", OK, '{"location":{"type":"string","bytes":6}}')
    assert (reading.not_understood, reading.ignored) == ((), 1)


@pytest.mark.parametrize("failed", [False, True])
def test_a_call_of_crewai_over_mcp_that_failed_maybe_is_one_row(failed):
    """The call's span, below it that of its MCP client, and beside it that of the failure."""
    trace = Trace()
    tool: dict[str, Any] = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "search"}
    outer = trace.add("crewai.telemetry", 1, **tool, crewai__event_name="tool_usage_finished")
    trace.add("crewai.telemetry", 2, around=1, **tool, crewai__event_name="mcp_tool_execution_completed")
    if failed:
        trace.add(
            "crewai.telemetry", 3, **tool, crewai__event_name="tool_failure_detected"
        ).status.code = Status.STATUS_CODE_ERROR
        outer.status.code = Status.STATUS_CODE_ERROR
    reading = read_spans(trace.spans)

    assert [row.outcome for row in reading.calls] == [FAILED if failed else OK]
    assert (reading.not_understood, reading.ignored) == ((), 1 + failed)


def test_a_call_of_crewais_mcp_client_alone_is_a_row():
    trace = Trace()
    tool: dict[str, Any] = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "search"}
    trace.add("crewai.telemetry", 1, **tool, crewai__event_name="mcp_tool_execution_completed")

    assert [row.tool_name for row in read_spans(trace.spans).calls] == ["search"]


@pytest.mark.parametrize(
    ("name", "cached", "reasoning"),
    [
        ("gen_ai.usage.details.cache_read_tokens", 3, 0),  # pydantic-ai 1
        ("gen_ai.usage.cached_input_tokens", 3, 0),  # Mastra
        ("gen_ai.usage.reasoning_tokens", 0, 3),  # Mastra, Copilot in VS Code
    ],
)
def test_tokens_by_other_names(name, cached, reasoning):
    trace = Trace()
    request: dict[str, Any] = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "m", **TOKENS}
    trace.add("a-framework", 1, **request, **{name.replace(".", "__"): 3})
    (row,) = read_spans(trace.spans).costs

    assert (row.input_tokens, row.output_tokens) == (11, 7)
    assert (row.cached_input_tokens, row.reasoning_tokens) == (cached, reasoning)


@pytest.mark.parametrize(
    "name", ["gen_ai.usage.details.cache_write_tokens", "gen_ai.usage.cache_creation_input_tokens"]
)
def test_tokens_that_a_cache_was_written_with_by_other_names(name):
    trace = Trace()
    model = {"gen_ai__provider__name": "anthropic", "gen_ai__request__model": "claude-sonnet-4-5"}
    request: dict[str, Any] = {
        "gen_ai__operation__name": "chat",
        **model,
        **TOKENS,
        "gen_ai__usage__input_tokens": 2_000,
    }
    trace.add("a-framework", 1, **request)
    trace.add("a-framework", 2, **request, **{name.replace(".", "__"): 1_000})
    plain, written = read_spans(trace.spans).costs

    assert written.input_tokens == plain.input_tokens == 2_000
    assert written.cost_micros > plain.cost_micros


@pytest.mark.parametrize("around", [{}, {"traceloop__workflow__name": "shop"}])
def test_a_span_with_a_model_and_tokens_and_no_operation_is_told_also_beside_others(around):
    trace = Trace()
    trace.add("a-framework", 1, gen_ai__operation__name="execute_tool", gen_ai__tool__name="add")
    trace.add("a-framework", 2, gen_ai__request__model="m", **around, **TOKENS)
    reading = read_spans(trace.spans)

    assert (len(reading.calls), reading.costs) == (1, ())
    assert [told.partition(": ")[2] for told in reading.not_understood] == [UNKNOWN.partition(": ")[2]]


def test_an_agents_sums_by_pydantic_ai_in_its_older_formats_are_no_request():
    trace = Trace()
    trace.add("pydantic-ai", 1, model_name="m", agent_name="calc", **TOKENS)
    reading = read_spans(trace.spans)

    assert (reading.costs, reading.not_understood, reading.ignored) == ((), (), 1)


def test_a_span_of_openinference_with_tokens_by_the_conventions_too_is_openinferences():
    trace = Trace()
    request: dict[str, Any] = {
        "openinference__span__kind": "LLM",
        "llm__model_name": "m",
        "llm__token_count__prompt": 11,
    }
    trace.add("a-framework", 1, **TOKENS, **request)

    assert [row.engine for row in read_spans(trace.spans).costs] == ["openinference"]
