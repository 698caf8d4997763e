"""Options that commands share, and how their values are read."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.terminal.running import Json, refuse_both
from service_kit.terminal.command import Argument, BadParameter, Filter, Option, Options
from service_kit.terminal.ids import OR_LAST
from service_kit.terminal.printing import Wide
from service_kit.times import parse_time

V = TypeVar("V", bound=int)

DEFAULT_TARGET = "127.0.0.1:50052"
VARIABLE = "AUDIT_LISTEN"
_KNOWN = "audit_svc.terminal.known"

Target = Annotated[
    str | None,
    Option(help=f"The address of a running service, host:port. [{VARIABLE}] [default: {DEFAULT_TARGET}]"),
]
Db = Annotated[
    Path | None,
    Option("--db", envvar="ONRECORD_DB", help="A database or a backup to read instead, without a service."),
]
SessionId = Annotated[
    str,
    Argument(
        help="The session: its id, the first or last characters of it, or @last.",
        known=f"{_KNOWN}:sessions",
        empty=OR_LAST,
    ),
]
Session = Annotated[
    str,
    Filter(help="Only this session: its id, the first or last characters of it, or @last.", known=f"{_KNOWN}:sessions"),
]
Turn = Annotated[str, Filter(help="Only this turn; quick beside its session.")]
Engine = Annotated[str, Filter(help="Only this engine.", known=f"{_KNOWN}:engines")]
Model = Annotated[str, Filter(help="Only this model.", known=f"{_KNOWN}:models")]
Tool = Annotated[str, Filter(help="Only this tool.", known=f"{_KNOWN}:tools")]
Outcomes = Annotated[
    list[str] | None, Option("--outcome", help="Only this outcome; may be repeated.", known=f"{_KNOWN}:outcomes")
]
ToolOfSome = Annotated[str, Filter("--tool", help="Only sessions that called this tool.", known=f"{_KNOWN}:tools")]
OutcomesOfSome = Annotated[
    list[str] | None,
    Option("--outcome", help="Only sessions in which some call ended so; may be repeated.", known=f"{_KNOWN}:outcomes"),
]
RecordedBy = Annotated[
    str | None, Option(help="Only what this caller recorded; empty: what callers without a name did.")
]
Principal = Annotated[str, Filter(help="Only what this caller's turns did.")]
Agent = Annotated[str, Filter(help="Only what this agent did.")]
DecidedBy = Annotated[str, Filter(help="Only calls on which this person answered, or that a stop of theirs refused.")]
Rule = Annotated[str, Filter(help="Only calls on which this rule decided.")]
Labels = Annotated[list[str] | None, Option("--label", help="Only sessions with key=value; may be repeated.")]
Contains = Annotated[str, Filter(help="Only calls whose summary of the arguments contains this text.")]
Suspect = Annotated[bool, Option("--clock-suspect", help="Only calls whose time a clock contradicts.")]
Since = Annotated[str, Filter(help="Only from then on: 30m, 24h, 7d, 2026-11-24 or 2026-11-24T09:00 (UTC).")]
Until = Annotated[str, Filter(help="Only before then.")]
Limit = Annotated[int, Option(min=1, help="How many at most.")]


def time_ms(text: str, option: str) -> int | None:
    """A time or an age in milliseconds since 1970-01-01 UTC; None for no text.

    Raises:
        BadParameter: text is neither.
    """
    try:
        return parse_time(text, time.time_ns() // 1_000_000) if text else None
    except BadParameter as error:
        error.param_hint = option
        raise


def address_of(target: str | None) -> str:
    """The address of a service: what was given, else AUDIT_LISTEN, else the usual one. Raises BadParameter."""
    refuse_both(None, target)
    return target or os.environ.get(VARIABLE) or DEFAULT_TARGET


def outcome_values(names: Sequence[str] | None) -> list[common_pb2.Outcome.ValueType]:
    """Outcomes by the names that the commands print, such as timed_out.

    Raises:
        BadParameter: one has no such name.
    """
    return [_value("--outcome", common_pb2.Outcome.items(), "OUTCOME_", name) for name in names or []]


def status_values(names: Sequence[str] | None) -> list[common_pb2.SessionStatus.ValueType]:
    """Statuses of sessions by the names that the commands print, such as idle.

    Raises:
        BadParameter: one has no such name.
    """
    return [_value("--status", common_pb2.SessionStatus.items(), "SESSION_STATUS_", name) for name in names or []]


def kind_values(names: Sequence[str] | None) -> list[audit_pb2.ControlKind.ValueType]:
    """Kinds of acts of control by the names that the commands print, such as rules_loaded.

    Raises:
        BadParameter: one has no such name.
    """
    return [_value("--kind", audit_pb2.ControlKind.items(), "CONTROL_KIND_", name) for name in names or []]


def label_values(labels: Sequence[str] | None) -> dict[str, str]:
    """Labels given as key=value.

    Raises:
        BadParameter: one is not.
    """
    for label in labels or []:
        if label.find("=") < 1:
            raise BadParameter(f"{label!r} is not key=value", param_hint="--label")
    return dict(label.split("=", 1) for label in labels or [])


class Source(Options):
    """The ledger that a command asks: a service, or a file."""

    target: Target = None
    db: Db = None

    @property
    def address(self) -> str:
        """The service, where no file is named. Raises BadParameter."""
        return address_of(self.target)


class Listing(Options):
    """How many rows a command lists, and in what form."""

    limit: Limit = 50
    as_json: Json = False
    wide: Wide = False


class Times(Options):
    """A range of times in which rows began."""

    since: Since = ""
    until: Until = ""

    def fields(self) -> dict[str, Any]:
        """The filter's fields. Raises BadParameter."""
        begin, end = time_ms(self.since, "--since"), time_ms(self.until, "--until")
        if begin is not None and end is not None and begin >= end:
            raise BadParameter(f"{self.since} is not before --until {self.until}", param_hint="--since")
        return {"created_from_ms": begin, "created_before_ms": end}


class RecentTimes(Times):
    """Times, by default of the last week."""

    since: Since = "7d"


class Requests(Options):
    """Which model requests are asked for."""

    session: Session = ""
    turn: Turn = ""
    engine: Engine = ""
    model: Model = ""
    recorded_by: RecordedBy = None
    principal: Principal = ""
    agent: Agent = ""

    def fields(self) -> dict[str, Any]:
        """The filter's fields. Raises BadParameter."""
        return {
            "session_id": self.session,
            "turn_id": self.turn,
            "engine": self.engine,
            "model": self.model,
            "recorded_by": self.recorded_by,
            "principal": self.principal,
            "agent": common_pb2.Software(name=self.agent) if self.agent else None,
        }


class Calls(Requests):
    """Which tool calls are asked for."""

    tool: Tool = ""
    outcome: Outcomes = None
    decided_by: DecidedBy = ""
    rule: Rule = ""

    def fields(self) -> dict[str, Any]:
        """The filter's fields. Raises BadParameter."""
        return Requests.fields(self) | self.of_calls()

    def of_calls(self) -> dict[str, Any]:
        """Those that only tool calls have. Raises BadParameter."""
        return {
            "tool_name": self.tool,
            "outcomes": outcome_values(self.outcome),
            "decided_by": self.decided_by,
            "rule": self.rule,
        }


def _value(option: str, values: Sequence[tuple[str, V]], prefix: str, name: str) -> V:
    known = {value_name.removeprefix(prefix).lower(): value for value_name, value in values}
    if name not in known:
        names = ", ".join(other for other in known if other != "unspecified")
        raise BadParameter(f"{name!r} is not one of {names}", param_hint=option)
    return known[name]
