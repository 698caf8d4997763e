"""Makes the rows of one export, by recording.rows. All text of others that a row keeps passes through here."""

from collections import Counter
from functools import lru_cache

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from intake_svc.dialects.base.event import Event
from intake_svc.dialects.base.showing import Agent, mcp_server_of, model_name, where
from intake_svc.dialects.base.spending import price_of, usage_of
from intake_svc.dialects.base.table import BRANCH, REPOSITORY, Dialect, Table
from intake_svc.dialects.reading import Labelled, Reading, SequenceNumber
from intake_svc.names import identifier, is_name
from recording.calls import AGENT_OWN, Decision, Failure, Scope, ToolCall, ToolResult
from recording.rows import cost_row, decide, end_call, fit, open_call

_WHERE = frozenset(REPOSITORY + BRANCH)
NO_TIMES = "it has no times that a row could have"
NO_TOOL = "it names no tool"
NO_MODEL = "it names neither a model nor tokens"
CUT = "it lost the attributes that say what it is: set OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT to more where it comes from"


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
        self._labels: list[Labelled] = []
        self._ignored = 0
        self._alike: Counter[tuple[bytes, int, str]] = Counter()
        """How many calls or requests there are of which all is alike that tells them from others."""
        self._scopes: dict[tuple[str, ...], Scope] = {}
        """What scope() made of such texts: most spans of an export share theirs with others."""
        self._identifier = lru_cache(maxsize=None)(identifier)
        self._model_name = lru_cache(maxsize=None)(model_name)
        self._tools: dict[str, tuple[bool, str, str]] = {}
        """Of a tool's name: whether it can be shown, under which its arguments are known, and the MCP server in it."""

    def reading(self) -> Reading:
        """What was collected."""
        return Reading(
            calls=tuple(self._calls),
            costs=tuple(self._costs),
            not_understood=tuple(self._not_understood),
            ignored=self._ignored,
            sequence=tuple(self._sequence),
            intents=tuple(self._intents),
            labels=tuple(self._labels),
            engines=frozenset((self.dialect.engine,)),
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
            counted_by = fit.identifier(self._identifier(event.attributes.text(self.table.counted_by)))
            stream = f"{self.dialect.engine} {names[0]}"
            self._sequence.append(SequenceNumber(fit.identifier(session), stream, number, counted_by))

    def label(self, event: Event, otherwise: str = "") -> None:
        """Keeps where the session is, where the event says. otherwise: as for session()."""
        if event.ended_ms and event.attributes.have(_WHERE):
            session = self.session(event, otherwise)
            self._labels += where(event.attributes, [(session, self.dialect.engine, event.ended_ms)])

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
        told = f"{self.dialect.engine}\0{session}\0{name}\0{call_id}\0{_told(number)}\0{event.duration_ms}"
        if (tool := self._tools.get(name)) is None:
            tool = self._tools[name] = is_name(name), f"{self.dialect.engine}:{name}", mcp_server_of(name)
        offered, known_as, server = tool
        if not (call_id or event.is_named or number is not None):
            told = self._told_apart(event, told, arguments)
        server = attributes.text(table.mcp_server) or server
        row = open_call(
            ToolCall(event.row_id(told), identifier(call_id), name, arguments or ""),
            scope,
            offered=offered,
            known_as=known_as,
            mcp_server=(server if server and is_name(server) else "", ""),
        )
        if not scope.model and (model := attributes.text(table.model)):
            row.model = fit.model(model_name(model))
        if arguments is None:
            row.args_summary = ""  # the agent did not send them, which is not that there are none
        decide(row, decision or AGENT_OWN)
        if result is None:
            row.created_at_ms = event.began_ms
            return self._intents.append(row)
        end_call(row, result)
        return self._calls.append(row)

    def _told_apart(self, event: Event, told: str, arguments: str | None) -> str:
        """What tells a call that has no id from others: some that ran side by side end in the same millisecond."""
        attributes, table = event.attributes, self.table
        told += f"\0{attributes.number(table.result_bytes)}\0{attributes.flag(table.success)}\0{len(arguments or '')}"
        return f"{told}\0{self._nth(event, told)}"

    def _nth(self, event: Event, told: str) -> int:
        """Of those of the export of which all is alike: each is another, since exporters put nothing in twice."""
        key = event.source, event.began_ms, told
        self._alike[key] += 1
        return self._alike[key]

    def cost(self, event: Event, *, scope: Scope, failure: Failure | None = None) -> None:
        """Adds the model request of an event."""
        attributes, table = event.attributes, self.table
        usage = usage_of(self.dialect, table, event)
        model = self._model_name(attributes.text(table.model))
        requested = scope.model
        if not (model or requested or usage.complete):
            return self.refuse(NO_MODEL)
        if not event.began_ms:
            return self.refuse(NO_TIMES)
        number = attributes.number(table.sequence)
        session = attributes.text(table.session)
        told = (
            f"{self.dialect.engine}\0{session}\0{model}\0{_told(number)}\0{event.duration_ms}\0{usage.input_tokens}"
            f"\0{usage.output_tokens}\0{usage.cached_input_tokens}\0{usage.reasoning_tokens}"
        )
        if not (event.is_named or number is not None) and (nth := self._nth(event, told)) > 1:
            told += f"\0{nth}"
        price, is_reported = price_of(self.dialect, table, event, usage, model or requested)
        row = cost_row(
            scope,
            usage,
            model=model or requested,
            cost_micros=price,
            cost_reported=is_reported,
            created_at_ms=event.began_ms,
            duration_ms=event.duration_ms,
            failure=failure,
            row_id=event.row_id(told),
        )
        return self._costs.append(row)

    def scope(self, event: Event, *, session: str = "", turn: str = "", parent_turn: str = "") -> Scope:
        """What the row of an event belongs to.

        Args:
            event: the span or the record; its model is the one that was asked for.
            session: where the event names none.
            turn: in the place of what the event names.
            parent_turn: the turn that began it.
        """
        attributes, table, trace_id = event.attributes, self.table, event.trace_id
        session = attributes.text(table.session) or session or trace_id
        model = attributes.text(table.requested_model)
        turn = turn or attributes.text(table.turn)
        key = session, model, turn, parent_turn, trace_id
        if (scope := self._scopes.get(key)) is None:
            scope = self._scopes[key] = Scope(
                self._identifier(session),
                self.dialect.engine,
                self._model_name(model),
                self._identifier(turn),
                trace_id,
                agent=self._agent,
                source=common_pb2.SOURCE_OTLP,
                parent_turn_id=self._identifier(parent_turn),
            )
        self.label(event, session)
        return scope


def _told(number: int | None) -> str | int:
    return "" if number is None else number
