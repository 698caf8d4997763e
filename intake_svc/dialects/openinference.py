"""OpenInference: LangChain, LangGraph, the OpenAI Agents SDK and others, by Arize's instrumentation.

https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md is the source of its names.
"""

from collections.abc import Iterable
from dataclasses import replace

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.logs import Kind
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.spans import kind_by, read_each
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading

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
    model=("llm.model_name",),
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

_KINDS = {"TOOL": Kind.RESULT, "LLM": Kind.REQUEST}


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans."""
    return read_each(DIALECT, SPANS, spans, agent, kind_by(_KINDS, SPANS))


def read_sdk_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans of the OpenAI Agents SDK."""
    return read_each(DIALECT, SDK_SPANS, spans, agent, kind_by(_KINDS, SDK_SPANS))
