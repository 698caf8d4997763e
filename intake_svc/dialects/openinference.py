"""OpenInference: LangChain, LangGraph, the OpenAI Agents SDK and others, by Arize's instrumentation.

https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md is the source of its names.
"""

from collections.abc import Iterable

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.event import of_span
from intake_svc.dialects.base.logs import FAILED
from intake_svc.dialects.base.results import result_of
from intake_svc.dialects.base.rows import Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading
from recording.calls import Failure

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
    model=("llm.model_name",),
    provider=("llm.provider", "llm.system"),
    input_tokens=("llm.token_count.prompt",),
    output_tokens=("llm.token_count.completion",),
    cached_tokens=("llm.token_count.prompt_details.cache_read",),
    cache_write_tokens=("llm.token_count.prompt_details.cache_write",),
    reasoning_tokens=("llm.token_count.completion_details.reasoning",),
    cost_usd=("llm.cost.total",),
)


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans."""
    rows = Rows(DIALECT, SPANS, agent)
    for span in spans:
        event = of_span(span, SPANS)
        match event.attributes.text(SPANS.kind):
            case "TOOL":
                rows.call(
                    event,
                    result_of(SPANS, event, failed=event.failed, error=event.error_type),
                    scope=rows.scope(event),
                    arguments=event.attributes.json(SPANS.arguments),
                )
            case "LLM":
                rows.cost(event, scope=rows.scope(event), failure=Failure(FAILED) if event.failed else None)
            case _:
                rows.ignore()
    return rows.reading()
