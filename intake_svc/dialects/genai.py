"""Reads spans by the conventions for generative AI: of pydantic-ai, ADK, Strands, Spring AI, MCP and many others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.decisions import by_agent
from intake_svc.dialects.base.event import Event, is_given, of_span
from intake_svc.dialects.base.logs import FAILED
from intake_svc.dialects.base.once import Account, repeated
from intake_svc.dialects.base.results import refused, result_of, unknown_end
from intake_svc.dialects.base.rows import CUT, Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Attributes, Dialect, Table, wanted
from intake_svc.dialects.conventions import (
    MCP_CALL,
    MCP_METHOD,
    MCP_SERVER,
    NO_TOOL,
    SPANS,
    STRANDS,
    Convention,
    mend,
    operation_of,
)
from intake_svc.dialects.reading import Reading, joined
from recording.calls import Failure, Scope

_MESSAGE = Table(arguments=("content",))
"""The event in which Strands has the arguments."""

_REQUESTS = frozenset(("chat", "generate_content", "text_completion", "embeddings"))
_FRAMES = frozenset(("", "invoke_agent", "create_agent", "invoke_workflow", "plan", "retrieval"))
"""What may have a tool, tokens or a model, and be no call and no request."""
NO_OPERATION = "it has a tool, tokens or a model, and an operation that is not known"
_BAD, _GOOD = frozenset(("error", "failed", "failure")), frozenset(("", "success", "succeeded", "ok", "completed"))
"""Words by which a call's status says how it ended. By another one it is not known."""
_REJECTED = "reject"
"""Haystack's word for a call that never ran."""
_LONGEST_WAY = 64


@dataclass(slots=True)
class Member:
    """A span of an export, and what its kin is told by."""

    span: Span
    event: Event
    convention: Convention
    rows: Rows
    operation: str
    """In these conventions' words, or by the name of a tool; empty where it has neither."""
    key: tuple[bytes, bytes]
    """The ids of its trace and its own."""
    around: tuple[bytes, bytes] | None
    """The key of the span around it; None where there is none."""

    def names_tool(self) -> bool:
        """Whether it has the attribute that only a tool's span has."""
        return bool(self.event.attributes.text(self.convention.table.tool[:1]))

    def call(self) -> tuple[str, str]:
        """The tool and the id of its call, each empty where it is not told."""
        table = self.convention.table
        return self.event.attributes.text(table.tool), self.event.attributes.text(table.call_id)

    def says_operation(self) -> bool:
        """Whether it has its operation in an attribute."""
        return self.event.attributes.have(self.convention.operation)

    def counts(self) -> bool:
        """Whether it has tokens."""
        table = self.convention.table
        return self.event.attributes.have(table.input_tokens + table.output_tokens)

    def names_model(self) -> bool:
        """Whether it has a model, as a request has."""
        table = self.convention.table
        return self.event.attributes.have(table.model + table.requested_model)

    def is_unknown(self) -> bool:
        """Whether it may be a call or a request, by an operation that is not known or not told."""
        if not self.operation:
            return self.counts() and self.names_model()
        return self.operation not in _FRAMES and (self.names_tool() or self.counts() or self.names_model())


@dataclass(slots=True)
class Family:
    """The spans of one export, by which a span without a session or a turn finds those of its kin."""

    members: dict[tuple[bytes, bytes], Member] = field(default_factory=dict)
    """By their keys."""
    sessions: dict[str, str] = field(default_factory=dict)
    """Of a trace: the session that the first of its spans names."""
    turns: dict[tuple[bytes, bytes], list[str]] = field(default_factory=dict)
    """What agents() found, of the key of the span around: siblings have the same."""

    def add(self, span: Span, event: Event, convention: Convention, rows: Rows) -> Member:
        """Adds a span."""
        trace_id, around = span.trace_id, span.parent_span_id
        key = trace_id, span.span_id
        mend(event.attributes, convention)
        member = Member(
            span,
            event,
            convention,
            rows,
            operation_of(event.attributes, convention),
            key,
            (trace_id, around) if is_given(around) and around != span.span_id else None,
        )
        if event.is_named:
            self.members[key] = member
        if event.trace_id not in self.sessions and (session := event.attributes.text(convention.table.session)):
            self.sessions[event.trace_id] = session
        return member

    def around(self, member: Member) -> Member | None:
        """The span around a span, where the export has it."""
        return self.members.get(member.around) if member.around else None

    def above(self, member: Member) -> Iterable[Member]:
        """The spans around a span, the nearest first."""
        at = self.around(member)
        for _ in range(_LONGEST_WAY):
            if at is None:
                return
            yield at
            at = self.around(at)

    def agents(self, member: Member) -> list[str]:
        """The turns of the agents around a span, the nearest first."""
        if member.around is None:
            return []
        if (known := self.turns.get(member.around)) is None:
            known = self.turns[member.around] = []
            for at in self.above(member):
                if at.operation == "invoke_agent":
                    turn = at.event.attributes.text(at.convention.table.turn) or at.key[1].hex()
                    if turn not in known:
                        known.append(turn)
        return known


def read(spans: Iterable[tuple[Convention, Span]], agent_of: Callable[[Dialect], Agent]) -> Reading:
    """The rows of spans of one resource, each with the convention that it follows.

    They are read together, since a client's span may follow another convention than the framework's span around it.
    """
    family = Family()
    members: list[Member] = []
    all_rows: dict[str, Rows] = {}
    for convention, span in spans:
        event = of_span(span, convention.table)
        if (followed := convention.followed(event.attributes.have)) is not convention:
            convention = followed
            event = of_span(span, convention.table)
        if (rows := all_rows.get(convention.dialect.engine)) is None:
            dialect = convention.dialect
            rows = all_rows[dialect.engine] = Rows(dialect, convention.table, agent_of(dialect))
        members.append(family.add(span, event, convention, rows))
    told_elsewhere = _repeated_requests(members)
    for member in members:
        event, operation, rows = member.event, member.operation, member.rows
        table = rows.table
        is_mcp_call = MCP_CALL in (operation, event.attributes.text(MCP_METHOD))
        if member.key in told_elsewhere or (is_mcp_call and _is_repeated_call(member, family)):
            rows.ignore()  # the agent's own span has it
        elif operation == "execute_tool" and _is_told_around(member, family):
            rows.ignore()
        elif operation in _REQUESTS:
            attributes = event.attributes
            error = attributes.text(table.error_type) or event.error_type
            failed = event.failed or bool(error) or attributes.word(table.status) in _BAD
            failure = Failure(FAILED, attributes.number(table.http_status)) if failed else None
            rows.cost(event, scope=_scope(rows, member, family), failure=failure)
        elif event.attributes.text(table.tool) == NO_TOOL:
            rows.ignore()
        elif operation == "execute_tool" or (is_mcp_call and operation in ("", MCP_CALL)):
            _add_call(rows, member, family)
        elif not operation and event.attributes.word(table.decision) == _REJECTED:
            rows.call(event, refused(event), by_agent(allowed=False), scope=_scope(rows, member, family))
        elif member.is_unknown():
            rows.refuse(NO_OPERATION)
        elif event.is_cut and not operation and not is_mcp_call:
            rows.refuse(CUT)
        else:
            rows.ignore()  # sums and frames: invoke_agent, create_agent, plans
            rows.label(event, family.sessions.get(event.trace_id, ""))
    readings = [rows.reading() for rows in all_rows.values()]
    return readings[0] if len(readings) == 1 else joined(readings)


def _repeated_requests(members: Iterable[Member]) -> set[tuple[bytes, bytes]]:
    """The keys of the requests that another span tells of too."""
    requests = (member for member in members if member.event.is_named and member.operation in _REQUESTS)
    # one that does not say its operation counts where none right below it does
    return repeated({m.key: Account(m.around, m.counts() and m.says_operation()) for m in requests})


def _is_repeated_call(member: Member, family: Family) -> bool:
    """Whether the span of an MCP call tells once more of one: a server's does, and a client's below the agent's own."""
    return member.span.kind == Span.SPAN_KIND_SERVER or any(
        each.operation in ("execute_tool", MCP_SERVER) for each in family.above(member)
    )


def _is_told_around(member: Member, family: Family) -> bool:
    """Whether a span around the span of a call tells of the call too, as that of another instrumentation.

    A model server may give an id again: a call of an agent within the call is another.
    """
    call = member.call()
    if call[1]:
        for each in family.above(member):
            if each.operation in ("execute_tool", "invoke_agent"):
                return each.operation == "execute_tool" and each.call() == call
    return False


def _add_call(rows: Rows, member: Member, family: Family) -> None:
    event, table = member.event, rows.table
    attributes = event.attributes
    error = attributes.text(table.error_type) or event.error_type
    status = attributes.word(table.status)
    failed = event.failed or bool(error) or status in _BAD
    is_told = failed or (event.says_end and status in _GOOD)
    arguments = attributes.json(table.arguments)
    was_refused = error in rows.dialect.refusals
    rows.call(
        event,
        refused(event)
        if was_refused
        else result_of(table, event, failed=failed, error=error)
        if is_told
        else unknown_end(event),
        by_agent(allowed=False) if was_refused else None,
        scope=_scope(rows, member, family),
        arguments=_in_message(event, member.span) if arguments is None else arguments,
    )


def _in_message(event: Event, span: Span) -> str | None:
    """The arguments in the event in which Strands has them. By the conventions it has what a tool returned."""
    if event.attributes.text(SPANS.provider) == STRANDS:
        for message in span.events:
            if message.name == "gen_ai.tool.message":
                return Attributes(message.attributes, *wanted(_MESSAGE)).json(_MESSAGE.arguments)
    return None


def _scope(rows: Rows, member: Member, family: Family) -> Scope:
    event, agents = member.event, family.agents(member)
    own, parent = event.attributes.text(rows.table.turn), ""
    for turn in agents:  # each is there once
        if not own:
            own = turn
        elif turn != own:
            parent = turn
            break
    session = family.sessions.get(event.trace_id, "")
    return rows.scope(event, session=session, turn=own, parent_turn=parent)
