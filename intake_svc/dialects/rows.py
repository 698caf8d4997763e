"""Makes the rows of one export, by recording.rows. All text of others that a row keeps passes through here."""

import re
from dataclasses import dataclass
from hashlib import sha256

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from intake_svc.dialects.event import Event
from intake_svc.dialects.reading import Reading, SequenceNumber
from intake_svc.dialects.table import Dialect, Table
from recording.calls import AGENT_OWN, Decision, Failure, Scope, ToolCall, ToolResult, Usage
from recording.rows import close_call, cost_row, decide, fit, open_call
from service_kit.pricing import cost_micros

NO_TIMES = "it has no times that a row could have"
NO_TOOL = "it names no tool"
NO_MODEL = "it names neither a model nor tokens"

# What ids and names consist of. Anything else may be somebody's sentence: ids become digests, names are not shown.
_ID = re.compile(r"[A-Za-z0-9_.:/@+~=|#-]{1,256}", re.ASCII)
_TOOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/@-]{0,127}", re.ASCII)
_ERROR_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:]{0,63}", re.ASCII)
_VERSION = re.compile(r"v?[0-9][A-Za-z0-9.+_-]{0,40}", re.ASCII)
_MCP_TOOL = re.compile(r"mcp__([A-Za-z0-9_.-]{1,64}?)__.+", re.ASCII)
_TIMED_OUT = re.compile(r"(?:.*[._])?(?:\w*timeout\w*|timed_out|deadline_exceeded)", re.IGNORECASE)
_CANCELLED = re.compile(r"(?:.*[._])?(?:\w*cancell?ed\w*|\w*abort(?:ed)?(?:error)?|\w*interrupt(?:ed)?)", re.IGNORECASE)
_PROVIDERS = {
    "gcp.gen_ai": "google",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "vertexai": "google",
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
}


@dataclass(frozen=True, slots=True)
class Agent:
    """Who exported, as the resource says."""

    name: str
    version: str


def agent_of(dialect: Dialect, name: str, version: str) -> Agent:
    """The agent of a resource. What does not look like a name or a version is not shown."""
    shown = version if dialect.version_is_the_agents and _VERSION.fullmatch(version) else ""
    return Agent(name if _TOOL.fullmatch(name) else dialect.agent, shown)


def identifier(text: str) -> str:
    """An id as it is; one that may be a sentence, as a digest of it."""
    if not text or _ID.fullmatch(text):
        return text
    return "~" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def error_type(text: str) -> str:
    """The type of an error, `error` where it is told by something else."""
    return text if _ERROR_TYPE.fullmatch(text) else "error"


class Rows:
    """Collects the rows of one export of one dialect."""

    def __init__(self, dialect: Dialect, table: Table, agent: Agent) -> None:
        self.dialect = dialect
        self.table = table
        self._agent = (agent.name, agent.version)
        self._calls: list[audit_pb2.AuditRow] = []
        self._costs: list[audit_pb2.CostRow] = []
        self._intents: list[audit_pb2.AuditRow] = []
        self._not_understood: list[str] = []
        self._sequence: list[SequenceNumber] = []
        self._ignored = 0

    def reading(self) -> Reading:
        """What was collected."""
        return Reading(
            calls=tuple(self._calls),
            costs=tuple(self._costs),
            not_understood=tuple(self._not_understood),
            ignored=self._ignored,
            sequence=tuple(self._sequence),
            intents=tuple(self._intents),
        )

    def ignore(self) -> None:
        """Counts an event that is known, and of no interest."""
        self._ignored += 1

    def refuse(self, reason: str) -> None:
        """Tells of an event that should be a row and cannot be. The reason is of our own words."""
        self._not_understood.append(f"{self.dialect.engine}: {reason}")

    def count(self, event: Event) -> None:
        """Keeps the producer's own number of the event."""
        names = self.table.sequence
        number = event.attributes.number(names)
        if number is not None and (session := self.session(event)):
            self._sequence.append(SequenceNumber(fit.identifier(session), f"{self.dialect.engine} {names[0]}", number))

    def session(self, event: Event, otherwise: str = "") -> str:
        """The session of an event: its own, else the one that is given, else its trace."""
        return identifier(event.attributes.text(self.table.session) or otherwise or event.trace_id)

    def call(
        self,
        event: Event,
        result: ToolResult | None,
        decision: Decision | None = None,
        *,
        scope: Scope,
        arguments: str | None = None,
    ) -> None:
        """Adds the call of an event: ended as the result says, or yet to run where there is none."""
        attributes, table = event.attributes, self.table
        name = attributes.text(table.tool)
        if not name:
            return self.refuse(NO_TOOL)
        if not event.began_ms:
            return self.refuse(NO_TIMES)
        call_id = attributes.text(table.call_id)
        number = attributes.number(table.sequence)
        session = attributes.text(table.session)
        row_id = event.row_id(self.dialect.engine, session, name, call_id, number, event.duration_ms)
        found = _MCP_TOOL.fullmatch(name)
        server = attributes.text(table.mcp_server) or (found[1] if found else "")
        intent = open_call(
            ToolCall(row_id, identifier(call_id), name, arguments or ""),
            scope,
            offered=_TOOL.fullmatch(name) is not None,
            known_as=f"{self.dialect.engine}:{name}",
            mcp_server=(server if _TOOL.fullmatch(server) else "", ""),
        )
        if not scope.model and (model := attributes.text(table.model)):
            intent.model = fit.model(_model(model))
        if arguments is None:
            intent.args_summary = ""  # the agent did not send them, which is not that there are none
        decide(intent, decision or AGENT_OWN)
        if result is None:
            intent.created_at_ms = event.began_ms
            return self._intents.append(intent)
        return self._calls.append(close_call(intent, result))

    def cost(self, event: Event, *, scope: Scope, failure: Failure | None = None) -> None:
        """Adds the model request of an event."""
        attributes, table = event.attributes, self.table
        usage = usage_of(self.dialect, table, event)
        model = _model(attributes.text(table.model))
        requested = scope.model
        if not (model or requested or usage.complete):
            return self.refuse(NO_MODEL)
        if not event.began_ms:
            return self.refuse(NO_TIMES)
        counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens)
        number = attributes.number(table.sequence)
        row = cost_row(
            scope,
            usage,
            model=model or requested,
            cost_micros=self._price(event, usage, model or requested),
            created_at_ms=event.began_ms,
            duration_ms=event.duration_ms,
            failure=failure,
        )
        session = attributes.text(table.session)
        row.id = event.row_id(self.dialect.engine, session, model, number, event.duration_ms, *counts)
        return self._costs.append(row)

    def scope(self, event: Event, *, session: str = "", turn: str = "", parent_turn: str = "") -> Scope:
        """What the row of an event belongs to.

        Args:
            event: the span or the record; its model is the one that was asked for.
            session: where the event names none.
            turn: in the place of what the event names.
            parent_turn: the turn that began it.
        """
        return Scope(
            session_id=self.session(event, session),
            engine=self.dialect.engine,
            model=_model(event.attributes.text(self.table.requested_model)),
            turn_id=identifier(turn or event.attributes.text(self.table.turn)),
            trace_id=event.trace_id,
            agent=self._agent,
            source=common_pb2.SOURCE_OTLP,
            parent_turn_id=identifier(parent_turn),
        )

    def _price(self, event: Event, usage: Usage, model: str) -> int | None:
        """The price as the agent says, else by the list."""
        micros = event.attributes.number(self.table.cost_micros)
        dollars = event.attributes.amount(self.table.cost_usd)
        if micros is not None:
            return micros
        if dollars is not None:
            return round(min(dollars, 1e12) * 1_000_000)
        told = event.attributes.word(self.table.provider).partition(".chat")[0].partition(".responses")[0]
        provider = _PROVIDERS.get(told, told) or self.dialect.provider
        return cost_micros(None, provider, model, usage, at_ms=event.began_ms) if model else None


def usage_of(dialect: Dialect, table: Table, event: Event) -> Usage:
    """The tokens of a request, counted alike for all: input with what caches had, output with what was reasoning."""
    attributes = event.attributes
    given, written = attributes.number(table.input_tokens), attributes.number(table.output_tokens)
    cached = attributes.number(table.cached_tokens) or 0
    cache_write = attributes.number(table.cache_write_tokens) or 0
    reasoning = attributes.number(table.reasoning_tokens) or 0
    total = attributes.number(table.total_tokens)
    read, out = given or 0, written or 0
    if dialect.input_excludes_cache or read < cached + cache_write:
        read += cached + cache_write
    read += attributes.number(table.tool_tokens) or 0
    if total:
        if total >= read + out + reasoning:
            out += reasoning
    elif dialect.output_excludes_reasoning or out < reasoning:
        out += reasoning
    return Usage(
        input_tokens=read,
        output_tokens=out,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_input_tokens=cache_write,
        complete=given is not None and written is not None,
    )


def result_of(
    table: Table, event: Event, *, failed: bool, error: str = "", outcome: common_pb2.Outcome.ValueType | None = None
) -> ToolResult:
    """How the call of an event ended.

    Args:
        table: the attributes of the event.
        event: the span or the record.
        failed: whether it failed.
        error: the type of its error, by which a time limit and a cancellation are told.
        outcome: how it ended, where that is known better.
    """
    attributes = event.attributes
    told = error_type(error)
    if outcome is None:
        outcome = _outcome(told) if failed else common_pb2.OUTCOME_SUCCEEDED
    return ToolResult(
        text="",
        outcome=outcome,
        error=f"the agent tells of {told}" if failed else None,
        exit_code=attributes.signed(table.exit_code),
        result_bytes=attributes.number(table.result_bytes) or 0,
        result_truncated=attributes.flag(table.truncated) or False,
        started_at_ms=event.began_ms,
        duration_ms=event.duration_ms,
    )


def unknown_end(event: Event) -> ToolResult:
    """The result of a call of which the agent does not say how it ended: never that it succeeded."""
    return ToolResult(
        text="",
        outcome=common_pb2.OUTCOME_INTERRUPTED,
        error="the agent does not say how the call ended",
        started_at_ms=event.began_ms,
        duration_ms=event.duration_ms,
    )


def refused(event: Event) -> ToolResult:
    """The result of a call that was refused, so that it never ran."""
    return ToolResult(text="", outcome=common_pb2.OUTCOME_DENIED, started_at_ms=event.began_ms)


def _outcome(error: str) -> common_pb2.Outcome.ValueType:
    if _TIMED_OUT.fullmatch(error):
        return common_pb2.OUTCOME_TIMED_OUT
    return common_pb2.OUTCOME_CANCELLED if _CANCELLED.fullmatch(error) else common_pb2.OUTCOME_FAILED


def _model(name: str) -> str:
    return name if _ID.fullmatch(name) else ""
