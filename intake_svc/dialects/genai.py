"""OpenTelemetry's conventions for generative AI: pydantic-ai, ADK, Strands, openai-agents-v2, MCP, and many others.

https://github.com/open-telemetry/semantic-conventions-genai is their source. They are in development and move.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.decisions import by_agent
from intake_svc.dialects.base.event import Event, of_span
from intake_svc.dialects.base.logs import FAILED
from intake_svc.dialects.base.results import refused, result_of
from intake_svc.dialects.base.rows import Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Attributes, Dialect, Table, named
from intake_svc.dialects.reading import Reading
from recording.calls import Failure, Scope

MARKS = ("gen_ai.operation.name", "mcp.method.name")
"""Of which the conventions ask one of each span."""

DIALECT = Dialect(engine="genai", agent="genai")
SPANS = Table(
    kind=MARKS,
    session=("gen_ai.conversation.id", "session.id"),
    turn=("gen_ai.agent.call.id",),
    tool=("gen_ai.tool.name",),
    call_id=("gen_ai.tool.call.id",),
    arguments=("gen_ai.tool.call.arguments", "tool_arguments"),
    status=("gen_ai.tool.status",),
    error_type=("error.type",),
    exit_code=("process.exit.code",),
    model=("gen_ai.response.model",),
    requested_model=("gen_ai.request.model",),
    provider=("gen_ai.provider.name", "gen_ai.system"),
    input_tokens=("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    output_tokens=("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    cached_tokens=("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
    cache_write_tokens=("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write_input_tokens"),
    reasoning_tokens=("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.details.reasoning_tokens"),
)
_MESSAGE = Table(arguments=("content",))
"""The event in which Strands has the arguments."""

_REQUESTS = frozenset(("chat", "generate_content", "text_completion", "embeddings"))
_MCP_CALL = "tools/call"
_LONGEST_WAY = 64


@dataclass(slots=True)
class Family:
    """The spans of one export, by which a span without a session or a turn finds those of its kin."""

    events: dict[tuple[bytes, bytes], tuple[bytes, Event]] = field(default_factory=dict)
    """Of a trace's and a span's id: its parent's, and itself."""
    sessions: dict[str, str] = field(default_factory=dict)
    """Of a trace: the session that the first of its spans names."""
    turns: dict[tuple[bytes, bytes], list[str]] = field(default_factory=dict)
    """What agents() found, of a trace's and a parent's id: siblings have the same."""

    def add(self, table: Table, span: Span, event: Event) -> None:
        """Adds a span."""
        self.events[span.trace_id, span.span_id] = (span.parent_span_id, event)
        if session := event.attributes.text(table.session):
            self.sessions.setdefault(event.trace_id, session)

    def above(self, span: Span) -> Iterable[tuple[bytes, Event]]:
        """The spans around a span, the nearest first: their ids and themselves."""
        at = span.parent_span_id
        for _ in range(_LONGEST_WAY):
            if not at or (span.trace_id, at) not in self.events:
                return
            parent, event = self.events[span.trace_id, at]
            yield at, event
            at = parent

    def agents(self, table: Table, span: Span) -> list[str]:
        """The turns of the agents around a span, the nearest first."""
        key = span.trace_id, span.parent_span_id
        if (known := self.turns.get(key)) is None:
            found = [
                event.attributes.text(table.turn) or span_id.hex()
                for span_id, event in self.above(span)
                if event.attributes.text(table.kind) == "invoke_agent"
            ]
            known = self.turns[key] = list(dict.fromkeys(found))
        return known


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans."""
    return read(spans, Rows(DIALECT, SPANS, agent))


def read(spans: Iterable[Span], rows: Rows) -> Reading:
    """The rows of spans that follow the conventions, of whichever dialect."""
    table, family = rows.table, Family()
    pairs = [(span, of_span(span, table)) for span in spans]
    for span, event in pairs:
        family.add(table, span, event)
    for span, event in pairs:
        operation = event.attributes.text(table.kind[:1])
        match operation:
            case _ if _is_repeated(span, event, operation, table, family):
                rows.ignore()  # the agent's own span has it
            case "execute_tool":
                _add_call(rows, span, event, family)
            case _ if operation in _REQUESTS:
                failed = event.failed or bool(event.attributes.text(table.error_type))
                failure = Failure(FAILED, event.attributes.number(table.http_status)) if failed else None
                rows.cost(event, scope=_scope(rows, span, event, family), failure=failure)
            case _ if event.attributes.text(table.kind) == _MCP_CALL:
                _add_call(rows, span, event, family)
            case _:
                rows.ignore()  # sums and frames: invoke_agent, create_agent, plans
                rows.label(event, rows.session(event, family.sessions.get(event.trace_id, "")))
    return rows.reading()


def _is_repeated(span: Span, event: Event, operation: str, table: Table, family: Family) -> bool:
    """Whether a span tells once more of a call or a request.

    An MCP server's does, an MCP client's below the agent's own, and that of a model's client below the agent's request.
    """
    above = (parent.attributes.text(table.kind[:1]) for _, parent in family.above(span))
    if event.attributes.text(MARKS[1:]) == _MCP_CALL:
        return span.kind == Span.SPAN_KIND_SERVER or "execute_tool" in above
    return operation in _REQUESTS and next(above, "") in _REQUESTS


def _add_call(rows: Rows, span: Span, event: Event, family: Family) -> None:
    attributes, table = event.attributes, rows.table
    error = attributes.text(table.error_type) or event.error_type
    failed = event.failed or bool(error) or attributes.word(table.status) in ("error", "failed")
    arguments = attributes.json(table.arguments)
    was_refused = error in rows.dialect.refusals
    rows.call(
        event,
        refused(event) if was_refused else result_of(table, event, failed=failed, error=error),
        by_agent(allowed=False) if was_refused else None,
        scope=_scope(rows, span, event, family),
        arguments=_in_message(span) if arguments is None else arguments,
    )


def _in_message(span: Span) -> str | None:
    for event in span.events:
        if event.name == "gen_ai.tool.message":
            return Attributes(event.attributes, named(_MESSAGE)).json(_MESSAGE.arguments)
    return None


def _scope(rows: Rows, span: Span, event: Event, family: Family) -> Scope:
    agents = family.agents(rows.table, span)
    own = event.attributes.text(rows.table.turn) or (agents[0] if agents else "")
    parent = next((each for each in agents if each != own), "")
    session = family.sessions.get(event.trace_id, "")
    return rows.scope(event, session=session, turn=own, parent_turn=parent)
