"""The AI SDK and Traceloop: spans around others repeat what those say, and each call and each request is one row.

The samples are what the programs sent to a scripted model. Spans that are written here follow OpenLLMetry's own
callback_handler.py and semconv_ai (traceloop/openllmetry, commit 0129a0a5) and ai-sdk-transformations.ts
(traceloop/openllmetry-js, commit 00e25296).
"""

from itertools import combinations
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from intake_svc.dialects import Reading, read_spans
from tests.intake_svc.dialects.exports import put, read, sample, spans_with
from tests.intake_svc.exports import BEGAN_NS

OK, FAILED = common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED
NUMBERS = ('{"a":{"type":"number"},"b":{"type":"number"}}',) * 2
ENTITY = tuple(f'{{"args":{{"type":"array","items":{n}}},"kwargs":{{"type":"object","fields":1}}}}' for n in (1, 0))


@pytest.mark.parametrize(
    ("name", "session", "turn", "parent", "tools", "args", "calls"),
    [
        # the call of version 4 names no session: its trace does
        ("ai-sdk-4.3.19", "s-1", "372cfdb082f7255f", "", ("add", "boom"), NUMBERS, ("call_abc1", "call_abc2")),
        ("ai-sdk-5.0.277", "s-1", "d3eb08b5922f0d75", "", ("add", "boom"), NUMBERS, ("call_abc1", "call_abc2")),
        ("ai-sdk-6.0.326", "s-1", "4c3704d07c8d3f3b", "", ("add", "boom"), NUMBERS, ("call_abc1", "call_abc2")),
        ("ai-sdk-7.0.173-legacy", "s-1", "d37622953b5c0010", "", ("add", "boom"), NUMBERS, ("call_abc1", "call_abc2")),
        ("ai-sdk-7.0.173", "s-1", "a87a618a4b6c9c87", "", ("add", "boom"), NUMBERS, ("call_abc1", "call_abc2")),
        ("traceloop-sdk-0.62.4", "s-1", "2808ecba3e9fad45", "015ac85ded9c3c79", ("add", "boom"), ENTITY, ("", "")),
        ("langchain-core-1.8.3-traceloop-0.62.4", "s-2", "67c53ad2df749e32", "", ("mul", "bang"), None, ("", "")),
    ],
)
def test_a_call_that_succeeds_and_one_that_fails_are_one_row_each(name, session, turn, parent, tools, args, calls):
    reading = read(sample(name))
    good, bad = reading.calls

    assert (good.tool_name, bad.tool_name) == tools
    assert (good.provider_call_id, bad.provider_call_id) == calls
    assert (good.outcome, good.error, bad.outcome) == (OK, "", FAILED)
    assert bad.error in ("the agent tells of TypeError", "the agent tells of ValueError")
    if args:
        assert (good.args_summary, bad.args_summary) == args
    rows: list[Any] = [*reading.calls, *reading.costs]
    for row in rows:
        assert row.session_id == session
        assert (row.turn_id, row.parent_turn_id) == (turn, parent)
        assert (row.agent.name, row.agent.version) == ("shop-agent", "1.2.3")


@pytest.mark.parametrize("name", ["ai-sdk-5.0.277", "traceloop-sdk-0.62.4", "langchain-core-1.8.3-traceloop-0.62.4"])
def test_spans_that_come_each_by_itself_make_rows_of_the_same_ids(name):
    export = sample(name)
    together = read(export)
    alone = []
    for scope in export.spans.scope_spans:
        for span in scope.spans:
            one = ResourceSpans(resource=export.spans.resource)
            one.scope_spans.add(scope=scope.scope, spans=[span])
            alone.append(read_spans(one))

    assert sorted(row.id for one in alone for row in one.calls) == sorted(row.id for row in together.calls)
    assert sorted(row.id for one in alone for row in one.costs) == sorted(row.id for row in together.costs)


class Trace:
    """Spans of one trace, each in a scope."""

    def __init__(self) -> None:
        self.spans = ResourceSpans()

    def add(self, scope: str, number: int, around: int = 0, **attributes: Any) -> Span:
        span = self.spans.scope_spans.add(scope={"name": scope}).spans.add(
            trace_id=b"t" * 16,
            span_id=number.to_bytes(8),
            parent_span_id=around.to_bytes(8) if around else b"",
            start_time_unix_nano=BEGAN_NS,
            end_time_unix_nano=BEGAN_NS + 5_000_000,
        )
        put(span.attributes, **attributes)
        return span


LANGCHAIN, OPENAI = "opentelemetry.instrumentation.langchain", "opentelemetry.instrumentation.openai.v1"
MCP = "opentelemetry.instrumentation.mcp"
TOKENS = {"gen_ai__usage__prompt_tokens": 11, "gen_ai__usage__completion_tokens": 7, "llm__usage__total_tokens": 18}
OLD_CHAT: dict[str, Any] = {
    "llm__request__type": "chat",
    "gen_ai__system": "OpenAI",
    "gen_ai__request__model": "m",
    **TOKENS,
}
NEW_CHAT: dict[str, Any] = {
    "gen_ai__operation__name": "chat",
    "gen_ai__request__model": "m",
    "gen_ai__usage__input_tokens": 11,
    "gen_ai__usage__output_tokens": 7,
}
TOOL: dict[str, Any] = {"traceloop__span__kind": "tool", "traceloop__entity__name": "search"}


@pytest.mark.parametrize(
    ("words", "requests"),
    [
        (OLD_CHAT, 1),
        (OLD_CHAT | {"llm__request__type": "completion"}, 1),
        (OLD_CHAT | {"llm__request__type": "embedding"}, 1),
        (OLD_CHAT | {"llm__request__type": "unknown"}, 0),
    ],
)
def test_a_request_of_an_older_openllmetry_is_known_by_its_type(words, requests):
    trace = Trace()
    trace.add(OPENAI, 1, **words, traceloop__association__properties__session_id="s-1")
    reading = read_spans(trace.spans)

    assert [(r.engine, r.session_id, r.model, r.input_tokens, r.output_tokens) for r in reading.costs] == [
        ("traceloop", "s-1", "m", 11, 7)
    ] * requests
    assert len(reading.not_understood) == 1 - requests


@pytest.mark.parametrize("client", [OPENAI, "opentelemetry.instrumentation.openai_v2", "a-client"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_request_that_a_client_of_another_convention_tells_of_once_more_is_one(client, backwards):
    trace = Trace()
    trace.add(LANGCHAIN, 1, traceloop__span__kind="workflow", traceloop__entity__name="shop")
    trace.add(LANGCHAIN, 2, around=1, **OLD_CHAT)
    trace.add(client, 3, around=2, **NEW_CHAT)
    if backwards:
        scopes = list(trace.spans.scope_spans)
        del trace.spans.scope_spans[:]
        trace.spans.scope_spans.extend(reversed(scopes))
    reading = read_spans(trace.spans)

    assert [(row.engine, row.input_tokens) for row in reading.costs] == [("traceloop", 11)]
    assert (reading.calls, reading.ignored) == ((), 2)


@pytest.mark.parametrize(
    ("scope", "behind", "engine"),
    [
        (OPENAI, {}, "genai"),  # so it has the same ids as by the conventions' own instrumentation
        (OPENAI, {"traceloop__workflow__name": "shop"}, "traceloop"),
        (OPENAI, {"traceloop__association__properties__session_id": "s-1"}, "traceloop"),
        ("a-client", {"traceloop__workflow__name": "shop"}, "genai"),
    ],
)
def test_a_mark_of_traceloop_behind_another_tells_in_scopes_of_openllmetry(scope, behind, engine):
    trace = Trace()
    trace.add(scope, 1, **NEW_CHAT, **behind)
    (row,) = read_spans(trace.spans).costs

    session = behind.get("traceloop__association__properties__session_id", row.trace_id)
    assert (row.engine, row.session_id) == (engine, session)


TOLD_BY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "aisdk": (
        {"ai__operationId": "ai.toolCall", "ai__toolCall__name": "search"},
        {"ai__operationId": "ai.streamText.doStream", "ai__model__id": "m", "ai__usage__inputTokens": 11},
    ),
    "traceloop": (TOOL, OLD_CHAT),
    "genai": ({"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "search"}, NEW_CHAT),
    "openinference": (
        {"openinference__span__kind": "TOOL", "tool__name": "search"},
        {"openinference__span__kind": "LLM", "llm__model_name": "m", "llm__token_count__prompt": 11},
    ),
}
"""A call and a request by each convention. Of a span by two of them, the earlier here tells."""


def read_in_both_orders(scope: str, one: dict[str, Any], other: dict[str, Any]) -> Reading:
    """The reading of a span with the attributes of both, which is the same in either order."""
    readings = []
    for attributes in (one | other, other | one):
        trace = Trace()
        trace.add(scope, 1, **attributes)
        readings.append(read_spans(trace.spans))
    assert readings[0] == readings[1]
    return readings[0]


@pytest.mark.parametrize("scope", ["my-agent", "ai", LANGCHAIN])
@pytest.mark.parametrize("which", [0, 1], ids=["call", "request"])
@pytest.mark.parametrize(("first", "second"), list(combinations(TOLD_BY, 2)))
def test_of_two_conventions_the_same_tells_in_either_order_of_attributes(first, second, which, scope):
    reading = read_in_both_orders(scope, TOLD_BY[first][which], TOLD_BY[second][which])
    rows: list[Any] = [*reading.calls, *reading.costs]

    assert [row.engine for row in rows] == [first]


@pytest.mark.parametrize("scope", ["my-agent", "ai", LANGCHAIN])
@pytest.mark.parametrize("which", [0, 1], ids=["call", "request"])
@pytest.mark.parametrize("engine", TOLD_BY)
@pytest.mark.parametrize(
    "ambient",
    [
        "traceloop__workflow__name",
        "traceloop__entity__name",
        "traceloop__entity__path",
        "traceloop__association__properties__session_id",
        "traceloop__association__properties__thread_id",
        "traceloop__association__properties__chat_id",
    ],
)
def test_what_traceloop_puts_on_any_span_within_a_workflow_hides_no_other_convention(ambient, engine, which, scope):
    told = TOLD_BY[engine][which]
    reading = read_in_both_orders(scope, told, {ambient: told.get(ambient, "shop")})
    rows: list[Any] = [*reading.calls, *reading.costs]

    by_scope = "traceloop" if (engine, scope) == ("genai", LANGCHAIN) else engine
    assert [row.engine for row in rows] == [by_scope]


def test_a_span_within_a_workflow_by_a_convention_that_no_dialect_is_for_is_told():
    within = {"traceloop__workflow__name": "shop"}
    reading = read_in_both_orders("my-agent", within, {"mlflow__spanType": "LLM"})

    assert reading.not_understood == ("no dialect is known by which the producer speaks",)


def test_spans_within_a_workflow_that_are_neither_call_nor_request_are_none():
    trace = Trace()
    trace.add("traceloop.tracer", 1, traceloop__span__kind="task", traceloop__entity__name="plan")
    within = {"traceloop__workflow__name": "shop", "traceloop__entity__name": "plan"}
    trace.add("opentelemetry.instrumentation.chromadb", 2, around=1, **within, db__system="chroma")
    reading = read_spans(trace.spans)

    assert (reading.calls, reading.costs, reading.not_understood, reading.ignored) == ((), (), (), 2)


@pytest.mark.parametrize(
    ("scope", "around", "calls"),
    [
        (LANGCHAIN, {**TOOL}, 1),
        ("ai", {"ai__operationId": "ai.toolCall", "ai__toolCall__name": "search"}, 1),
        ("an-agent", {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "search"}, 1),
        (MCP, {"traceloop__span__kind": "session", "traceloop__entity__name": "mcp.client.session"}, 1),
        (MCP, {"traceloop__span__kind": "server", "traceloop__entity__name": "mcp.server"}, 0),
    ],
)
def test_the_span_of_an_mcp_client_below_the_agents_own_is_no_second_call(scope, around, calls):
    trace = Trace()
    trace.add(scope, 1, **around)
    trace.add(MCP, 2, around=1, **TOOL)

    assert [row.tool_name for row in read_spans(trace.spans).calls] == ["search"] * calls


def test_a_tool_that_calls_itself_is_two_calls():
    trace = Trace()
    trace.add("traceloop.tracer", 1, **TOOL)
    trace.add("traceloop.tracer", 2, around=1, **TOOL)

    assert len(read_spans(trace.spans).calls) == 2


def test_a_span_of_the_ai_sdk_that_traceloop_renamed_is_the_ai_sdks():
    """Its SDK of JavaScript takes away what it has put under another name."""
    export = sample("ai-sdk-4.3.19")
    before = read(export)
    for span in spans_with(export, "ai.operationId", "ai.toolCall"):
        renamed = {"ai__toolCall__args": None, "traceloop__entity__input": '{"a":1,"b":2}'}
        put(span.attributes, **renamed, traceloop__workflow__name="shop")
    for span in spans_with(export, "ai.operationId", "ai.generateText.doGenerate"):
        usage = {"ai__usage__promptTokens": None, "ai__usage__completionTokens": None, "llm__usage__total_tokens": 18}
        put(span.attributes, **usage, ai__model__provider=None, gen_ai__system="OpenAI")
        session = {"ai__telemetry__metadata__sessionId": None, "traceloop__association__properties__sessionId": "s-1"}
        put(span.attributes, **session, traceloop__workflow__name="shop")
    for span in spans_with(export, "ai.operationId", "ai.generateText"):
        put(span.attributes, ai__telemetry__metadata__sessionId=None)

    assert read(export) == before


@pytest.mark.parametrize("scope", ["ai", "next.js"])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [("ai.streamText.doStream", "ai.streamText"), ("ai.generateObject.doGenerate", "ai.generateObject")],
)
def test_a_request_of_the_ai_sdk_that_ended_with_an_error_failed(scope, inner, outer):
    trace = Trace()
    trace.add(scope, 1, ai__operationId=outer, ai__model__id="m", ai__response__finishReason="error")
    trace.add(scope, 2, around=1, ai__operationId=inner, ai__model__id="m", ai__response__finishReason="error")
    (row,) = read_spans(trace.spans).costs

    assert (row.error, row.turn_id) == ("request_failed", "0000000000000001")


def test_embeddings_of_the_ai_sdk_are_one_request_each():
    trace = Trace()
    trace.add("ai", 1, ai__operationId="ai.embedMany", ai__model__id="e", ai__usage__tokens=10)
    trace.add("ai", 2, around=1, ai__operationId="ai.embedMany.doEmbed", ai__model__id="e", ai__usage__tokens=4)
    trace.add("ai", 3, around=1, ai__operationId="ai.embedMany.doEmbed", ai__model__id="e", ai__usage__tokens=6)

    assert [row.input_tokens for row in read_spans(trace.spans).costs] == [4, 6]


@pytest.mark.parametrize(
    ("told", "engine"),
    [
        ({"ai__operationId": "ai.imagine.doImagine", "ai__usage__inputTokens": 5}, "aisdk"),
        ({"ai__operationId": "ai.rerank.doRerank", "ai__model__id": "m"}, "aisdk"),
        ({"ai__operationId": "ai.transcribe.doGenerate", "ai__model__id": "m"}, "aisdk"),
        ({"llm__request__type": "rerank", "gen_ai__request__model": "m"}, "traceloop"),
        ({"gen_ai__operation__name": "rerank", "gen_ai__response__model": "m"}, "genai"),
    ],
)
def test_a_request_of_an_operation_that_is_not_known_is_told(told, engine):
    trace = Trace()
    trace.add("my-agent", 1, **told)
    reading = read_spans(trace.spans)

    assert reading.not_understood == (
        f"{engine}: it has a tool, tokens or a model, and an operation that is not known",
    )
    assert (reading.costs, reading.ignored) == ((), 0)


@pytest.mark.parametrize(
    "around",
    [
        {"ai__operationId": "ai.streamText", "ai__model__id": "m"},
        {"ai__operationId": "ai.embedMany", "ai__model__id": "m"},
        {"ai__operationId": "ai.rerank", "ai__model__id": "m"},
        {"ai__operationId": "ai.transcribe", "ai__model__id": "m"},
        {"traceloop__span__kind": "task", "gen_ai__request__model": "m"},
        {"gen_ai__operation__name": "invoke_agent", "gen_ai__request__model": "m"},
        {"traceloop__workflow__name": "shop", "gen_ai__request__model": "m"},
    ],
)
def test_a_span_around_requests_that_has_their_model_is_none(around):
    trace = Trace()
    trace.add("my-agent", 1, **around)
    reading = read_spans(trace.spans)

    assert (reading.not_understood, reading.costs, reading.ignored) == ((), (), 1)


def test_a_call_below_a_call_of_the_ai_sdk_is_of_a_turn_that_the_outer_one_began():
    trace = Trace()
    call = {"ai__operationId": "ai.toolCall", "ai__toolCall__name": "search"}
    trace.add("ai", 1, ai__operationId="ai.streamText")
    trace.add("ai", 2, around=1, **call)
    trace.add("ai", 3, around=2, ai__operationId="ai.generateText")
    trace.add("ai", 4, around=3, **call)

    assert [(row.turn_id, row.parent_turn_id) for row in read_spans(trace.spans).calls] == [
        ("0000000000000001", ""),
        ("0000000000000003", "0000000000000001"),
    ]
