"""Reads log records: an agent's account of its calls, of what was decided about them, and of its model requests."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from onrecord.common.v1 import common_pb2
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from intake_svc.dialects.base.event import Event, of_log
from intake_svc.dialects.base.results import refused, result_of, unknown_end
from intake_svc.dialects.base.rows import Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Attributes, Dialect, Table
from intake_svc.dialects.reading import Reading
from recording.calls import Decision, Failure, Scope, ToolResult

FAILED = "request_failed"
"""The code of a model request that failed, by the agent's account."""


NO_DECISION = "it does not say what was decided"


class Kind(Enum):
    """What a log record is of."""

    RESULT = auto()
    DECISION = auto()
    REQUEST = auto()
    FAILED_REQUEST = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDialect:
    """How an agent's log records are read."""

    dialect: Dialect
    table: Table
    kind: Callable[[Attributes], Kind]
    decision: Callable[[Event], Decision | None]
    """What was decided, of a decision or a result; None where it does not say."""
    scope: Callable[[Rows, Event], Scope] = Rows.scope
    arguments: Callable[[Attributes], str | None]


def read_records(how: LogDialect, records: Iterable[LogRecord], agent: Agent) -> Reading:
    """The rows of the log records of one export."""
    rows = Rows(how.dialect, how.table, agent)
    events = [(how.kind(event.attributes), event) for event in (of_log(record, how.table) for record in records)]
    decisions = {
        call: (event, decision)
        for kind, event in events
        if kind is Kind.DECISION and (call := _call(rows, event)) and (decision := how.decision(event))
    }
    ended = {_call(rows, event) for kind, event in events if kind is Kind.RESULT} - {None}
    for kind, event in events:
        rows.count(event)
        match kind:
            case Kind.RESULT:
                call = _call(rows, event)
                decision = how.decision(event) or (decisions[call][1] if call in decisions else None)
                _add_call(how, rows, event, _ended(how.table, event, decision), decision)
            case Kind.DECISION if _call(rows, event) in ended:
                rows.ignore()  # the row of the result has it
            case Kind.DECISION:
                if decision := how.decision(event):  # what is not known to be leave is none
                    denied = decision.verdict != common_pb2.VERDICT_ALLOWED
                    _add_call(how, rows, event, refused(event) if denied else None, decision)
                else:
                    rows.refuse(NO_DECISION)
            case Kind.REQUEST:
                rows.cost(event, scope=how.scope(rows, event))
            case Kind.FAILED_REQUEST:
                status = event.attributes.number(how.table.http_status)
                shown = status if status and status < 1_000 else None
                rows.cost(event, scope=how.scope(rows, event), failure=Failure(FAILED, shown))
            case Kind.NOTHING:
                rows.ignore()
    return rows.reading()


def kinds(words: Mapping[str, Kind], table: Table) -> Callable[[Attributes], Kind]:
    """Tells the kind of a record by the word that it has for it."""
    return lambda attributes: words.get(attributes.text(table.kind), Kind.NOTHING)


def _add_call(how: LogDialect, rows: Rows, event: Event, result: ToolResult | None, decision: Decision | None) -> None:
    rows.call(event, result, decision, scope=how.scope(rows, event), arguments=how.arguments(event.attributes))


def _call(rows: Rows, event: Event) -> tuple[str, str] | None:
    """What a call is known by among those of one export."""
    call_id = event.attributes.text(rows.table.call_id)
    return (rows.session(event), call_id) if call_id else None


def _ended(table: Table, event: Event, decision: Decision | None) -> ToolResult:
    success, status = event.attributes.flag(table.success), event.attributes.word(table.status)
    if decision is not None and decision.verdict == common_pb2.VERDICT_DENIED:
        return refused(event)
    if status.startswith("cancel"):
        return result_of(table, event, failed=True, error="cancelled", outcome=common_pb2.OUTCOME_CANCELLED)
    if success is None:
        return unknown_end(event)
    return result_of(table, event, failed=not success, error=event.attributes.text(table.error_type))
