"""OpenInference: LangChain, LangGraph, the OpenAI Agents SDK and others, by Arize's instrumentation.

https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md is the source of its names.
"""

from collections.abc import Iterable
from dataclasses import replace

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.event import Event, is_given, source_of
from intake_svc.dialects.base.logs import Kind
from intake_svc.dialects.base.once import Account, repeated
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.spans import kind_by, read_each
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading, joined

SPAN_SCOPE = "openinference."
"""What its scopes begin with: openinference.instrumentation.langchain and others."""
MARK = "openinference.span.kind"
"""What it asks of each span."""

DIALECT = Dialect(engine="openinference", agent="openinference")
SPANS = Table(
    kind=(MARK,),
    session=("session.id",),
    tool=("tool.name",),
    call_id=("tool_call.id", "tool.id"),
    arguments=("input.value",),
    error_type=("error.type",),
    model=("llm.model_name", "embedding.model_name"),
    provider=("llm.provider", "llm.system"),
    input_tokens=("llm.token_count.prompt",),
    output_tokens=("llm.token_count.completion",),
    cached_tokens=("llm.token_count.prompt_details.cache_read",),
    cache_write_tokens=("llm.token_count.prompt_details.cache_write",),
    reasoning_tokens=("llm.token_count.completion_details.reasoning",),
    cost_usd=("llm.cost.total",),
)
SDK_SCOPE = "openinference.instrumentation.openai_agents"
SDK_SPANS = replace(SPANS, result=("output.value",))
"""Of the OpenAI Agents SDK, which tells of a call that a person refused as of one that returned nothing, and well."""

_REQUESTS = ("LLM", "EMBEDDING")
_KINDS = {"TOOL": Kind.RESULT, **dict.fromkeys(_REQUESTS, Kind.REQUEST)}
_COUNTS = frozenset(SPANS.input_tokens + SPANS.output_tokens)


def read_spans(spans: Iterable[tuple[bool, Span]], agent: Agent) -> Reading:
    """The rows of spans of all scopes, each with whether it is of the OpenAI Agents SDK."""
    all_spans = list(spans)
    told_elsewhere = _repeated_requests(span for _, span in all_spans)
    kind = kind_by(_KINDS, SPANS)

    def kind_once(event: Event) -> Kind:
        return Kind.NOTHING if event.source in told_elsewhere else kind(event)

    parts = (
        (SPANS, [span for is_sdk, span in all_spans if not is_sdk]),
        (SDK_SPANS, [s for is_sdk, s in all_spans if is_sdk]),
    )
    return joined([read_each(DIALECT, table, part, agent, kind_once) for table, part in parts if part])


def _repeated_requests(spans: Iterable[Span]) -> set[bytes]:
    """The sources of the requests that another span tells of too."""
    requests = (
        span
        for span in spans
        if is_given(span.span_id)
        and any(item.key == MARK and item.value.string_value in _REQUESTS for item in span.attributes)
    )
    return repeated({source_of(s): Account(source_of(s, s.parent_span_id), _has_tokens(s)) for s in requests})


def _has_tokens(span: Span) -> bool:
    return any(item.key in _COUNTS for item in span.attributes)
