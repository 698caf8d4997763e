"""LiteLLM: model requests alone. It runs no tools."""

from collections.abc import Iterable
from dataclasses import replace

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects import conventions
from intake_svc.dialects.base.event import Event
from intake_svc.dialects.base.logs import Kind
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.spans import read_each
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading

SPAN_SCOPE = "litellm"

DIALECT = Dialect(engine="litellm", agent="litellm")
SPANS: Table = replace(
    conventions.SPANS,
    kind=("litellm.call_id", "llm.request.type"),  # older versions have the second alone
    turn=(),
    tool=(),
    call_id=(),
    arguments=(),
    status=(),
    exit_code=(),
    cost_usd=("gen_ai.cost.total_cost",),
)


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans: one that has a call's id or type is a request, those below it tell of the same once more."""
    return read_each(DIALECT, SPANS, spans, agent, _kind)


def _kind(event: Event) -> Kind:
    return Kind.REQUEST if event.attributes.text(SPANS.kind) else Kind.NOTHING
