"""One source a session: an agent that sends its log events and its spans tells of each call and request twice.

The events are preferred where a dialect reads both. Which sessions they tell of is remembered, not stored: after a
restart, or where spans come before the first event of their session, a model request may be on the record twice. A
call is not, as long as its id is remembered.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from onrecord.audit.v1 import audit_pb2

from intake_svc.dialects import claude
from intake_svc.dialects.reading import Reading

Signal = Literal["logs", "spans"]

PREFERRED: Mapping[str, Signal] = {claude.DIALECT.engine: "logs"}
"""Of the dialects of which both signals are read, the one that says more."""

_MOST_SESSIONS = 4_096
_MOST_CALLS = 1_024

_Row = TypeVar("_Row", audit_pb2.AuditRow, audit_pb2.CostRow)


@dataclass(slots=True)
class _Session:
    preferred: bool = False
    """Whether the preferred signal tells of it."""
    told: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of a call's id: the rows by which the other signal told of it. A model server's ids may repeat."""
    left_out: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of a call's id: the rows of the preferred signal that were left out for it."""


class OneSource:
    """Passes what one signal of a session says, and leaves out what the other says once more."""

    def __init__(self, preferred: Mapping[str, Signal] = PREFERRED, most_sessions: int = _MOST_SESSIONS) -> None:
        self._preferred = preferred
        self._most_sessions = most_sessions
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()

    def take(self, reading: Reading, signal: Signal) -> tuple[Reading, int]:
        """What of a reading goes on the record, and how many rows were left out, which count as ignored."""
        told_of = {(row.engine, row.session_id) for row in (*reading.calls, *reading.intents)}
        told_of |= {(row.engine, row.session_id) for row in reading.costs}
        told_of |= {(number.stream.partition(" ")[0], number.session_id) for number in reading.sequence}
        if not any(engine in self._preferred for engine, _ in told_of):
            return reading, 0
        for engine, session_id in told_of:
            if (session := self._session(engine, session_id)) and signal == self._preferred[engine]:
                session.preferred = True
        calls = tuple(row for row in reading.calls if self._passes_call(row, signal))
        costs = tuple(row for row in reading.costs if self._passes(row, signal))
        intents = tuple(row for row in reading.intents if self._passes(row, signal))
        left_out = len(reading.calls) + len(reading.costs) - len(calls) - len(costs)
        taken = replace(reading, calls=calls, costs=costs, intents=intents, ignored=reading.ignored + left_out)
        return taken, left_out

    def _passes_call(self, row: audit_pb2.AuditRow, signal: Signal) -> bool:
        if not self._passes(row, signal):
            return False
        session, call_id = self._session(row.engine, row.session_id), row.provider_call_id
        if session is None or not call_id:
            return True
        if signal != self._preferred[row.engine]:
            if len(session.told) < _MOST_CALLS:
                session.told[call_id].add(row.id)
            return True
        left_out = session.left_out[call_id] if call_id in session.told else set()
        if row.id not in left_out and len(left_out) >= len(session.told.get(call_id, ())):
            return True
        left_out.add(row.id)  # also the next time that it is sent
        return False

    def _passes(self, row: _Row, signal: Signal) -> bool:
        session = self._session(row.engine, row.session_id)
        return session is None or signal == self._preferred[row.engine] or not session.preferred

    def _session(self, engine: str, session_id: str) -> _Session | None:
        """What is remembered of a session; None where its dialect has one signal."""
        if engine not in self._preferred:
            return None
        key = (engine, session_id)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = _Session()
            while len(self._sessions) > self._most_sessions:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return session
