"""OpenTelemetry's conventions for generative AI: pydantic-ai, ADK, Strands, Spring AI, MCP, and many others.

https://github.com/open-telemetry/semantic-conventions-genai is their source. They are in development and move.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.decisions import by_agent
from intake_svc.dialects.base.event import Event, is_given, of_span
from intake_svc.dialects.base.logs import FAILED
from intake_svc.dialects.base.once import Account, repeated
from intake_svc.dialects.base.results import refused, result_of, unknown_end
from intake_svc.dialects.base.rows import Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Attributes, Dialect, Names, Table, wanted
from intake_svc.dialects.reading import Reading, joined
from recording.calls import Failure, Scope

MARKS = ("gen_ai.operation.name", "mcp.method.name")
"""Of which the conventions ask one of each span."""
_SPRING_KIND = "spring.ai.kind"
"""What Spring AI's spans are of, where their operation is `framework`."""
_CREWAI_EVENT = ("crewai.event_name",)
"""What CrewAI's spans are of, some of which tell of a call once more."""
TOOL_MARK = "gen_ai.tool.name"
"""What marks a call whose span has neither: pydantic-ai's, up to version 2 of its own format."""
HAYSTACK_MARK = "haystack.tool.name"
"""What marks Haystack's calls, and its checks whether a person allows one."""
_HAYSTACK_CHECK = ("haystack.agent.hook.human_in_the_loop.strategy.type",)
TOKEN_MARKS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
"""Of which a request has one whose span has none of these: ADK's, before it said its operation."""

DIALECT = Dialect(engine="genai", agent="genai")
SPANS = Table(
    kind=(*MARKS, _SPRING_KIND, *_CREWAI_EVENT, *_HAYSTACK_CHECK),
    session=(
        "gen_ai.conversation.id",
        "session.id",
        "gcp.vertex.agent.session_id",  # ADK's
        "spring.ai.chat.client.conversation.id",
        "copilot_chat.chat_session_id",  # of a call of Copilot in VS Code, whose requests have the first
    ),
    turn=("gen_ai.agent.call.id",),
    tool=(TOOL_MARK, "spring.ai.tool.definition.name", HAYSTACK_MARK),
    call_id=(
        "gen_ai.tool.call.id",
        "gen_ai.tool_call.id",  # ADK's of Java
        "spring.ai.tool.call.id",
        "haystack.tool.call.id",
    ),
    arguments=(
        "gen_ai.tool.call.arguments",
        "tool_arguments",
        "spring.ai.tool.call.arguments",
        "haystack.agent.step.tool.input",
    ),
    status=("gen_ai.tool.status",),
    error_type=("error.type",),
    exit_code=("process.exit.code", "ag2.code_execution.exit_code"),
    model=("gen_ai.response.model",),
    requested_model=("gen_ai.request.model",),
    provider=("gen_ai.provider.name", "gen_ai.system"),
    input_tokens=TOKEN_MARKS,
    output_tokens=("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    cached_tokens=(
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",  # pydantic-ai's, up to version 1
        "gen_ai.usage.cached_input_tokens",  # Mastra's, in its first versions
    ),
    cache_write_tokens=(
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
    ),
    reasoning_tokens=(
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.reasoning_tokens",  # Mastra's
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How spans say what these conventions say, be it by other names and words."""

    dialect: Dialect
    table: Table
    operation: Names
    """The attributes that may have the operation."""
    words: Mapping[str, str] = field(default_factory=dict)
    """The operations by their words, as these conventions name them."""
    marks: tuple[str, ...] = ()
    """Attributes of which a span has one, or follows another convention."""
    otherwise: "Convention | None" = None
    """That other one, whose attributes the table names too."""
    above: "Mapping[str, Convention]" = field(default_factory=dict)
    """By attributes that the table names: the conventions that a span with one of them follows, the first one first."""

    def followed(self, has: Callable[[Iterable[str]], bool]) -> "Convention":
        """The convention of a span. has: whether the span has any of some attributes."""
        if has(self.above):
            return next(convention for mark, convention in self.above.items() if has((mark,)))
        return self.otherwise if self.otherwise and not has(self.marks) else self


FRAME = "invoke_workflow"
"""The operation of what is around calls and requests, and is none."""
_EXECUTE_CODE = "execute_code"
"""AG2's operation of a call that names no tool."""
CONVENTION = Convention(
    dialect=DIALECT,
    table=SPANS,
    operation=(_SPRING_KIND, *MARKS[:1]),
    words={
        "call_llm": "generate_content",  # ADK's of Java
        "chat.completions": "chat",  # Semantic Kernel's
        "text.completions": "text_completion",
        "embedding": "embeddings",  # Spring AI's
        "tool_call": "execute_tool",  # of Spring AI's kinds
        "chat_client": "invoke_agent",
        "advisor": FRAME,
        "vector_store": "retrieval",
        "mcp_server_tool_call": FRAME,  # its client tells of the call
        _EXECUTE_CODE: "execute_tool",
    },
)

_STRANDS, _ADK = "strands-agents", "gcp.vertex.agent"
_NOT_SPECIFIED = "<not specified>"
"""ADK's id of a call whose result has none."""
_MESSAGE = Table(arguments=("content",))
"""The event in which Strands has the arguments."""

_REQUESTS = frozenset(("chat", "generate_content", "text_completion", "embeddings"))
_FRAMES = frozenset(("", "invoke_agent", "create_agent", "invoke_workflow", "plan", "retrieval"))
"""What may have a tool, tokens or a model, and be no call and no request."""
NO_OPERATION = "it has a tool, tokens or a model, and an operation that is not known"
_MCP_METHOD = MARKS[1:]
MCP_CALL = "tools/call"
_CREWAI_OPERATIONS = {
    "tool_failure_detected": FRAME,
    **dict.fromkeys((f"mcp_tool_execution_{end}" for end in ("started", "completed", "failed")), MCP_CALL),
}
MCP_SERVER = "mcp.server"
"""The operation of a span around what an MCP server does for its client."""
_NO_TOOL = "(merged tools)"
"""ADK's name for a span that has the answers of calls that ran side by side, beside the span of each."""
_BAD, _GOOD = frozenset(("error", "failed", "failure")), frozenset(("", "success", "succeeded", "ok", "completed"))
"""Words by which a call's status says how it ended. By another one it is not known."""
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
        if event.attributes.text(convention.table.call_id) == _NOT_SPECIFIED:
            event.attributes.drop(convention.table.call_id)
        told = event.attributes.text(convention.operation)
        member = Member(
            span,
            event,
            convention,
            rows,
            convention.words.get(told, told) if told else "",
            key,
            (trace_id, around) if is_given(around) and around != span.span_id else None,
        )
        if not told and not event.attributes.text(_MCP_METHOD):
            member.operation = self._untold(member)
        elif told == _EXECUTE_CODE:
            event.attributes.add(convention.table.tool, told)
        member.operation = _CREWAI_OPERATIONS.get(event.attributes.text(_CREWAI_EVENT), member.operation)
        if event.is_named:
            self.members[key] = member
        if event.trace_id not in self.sessions and (session := event.attributes.text(convention.table.session)):
            self.sessions[event.trace_id] = session
        return member

    def _untold(self, member: Member) -> str:
        """The operation of a span that does not say it; empty where it cannot be known."""
        attributes = member.event.attributes
        if member.names_tool() or (attributes.have((HAYSTACK_MARK,)) and not attributes.have(_HAYSTACK_CHECK)):
            return "execute_tool"
        is_adk = attributes.text(SPANS.provider) == _ADK
        return "generate_content" if is_adk and member.names_model() and member.counts() else ""

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
        is_mcp_call = MCP_CALL in (operation, event.attributes.text(_MCP_METHOD))
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
        elif event.attributes.text(table.tool) == _NO_TOOL:
            rows.ignore()
        elif operation == "execute_tool" or (is_mcp_call and operation in ("", MCP_CALL)):
            _add_call(rows, member, family)
        elif member.is_unknown():
            rows.refuse(NO_OPERATION)
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
    if event.attributes.text(SPANS.provider) == _STRANDS:
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
