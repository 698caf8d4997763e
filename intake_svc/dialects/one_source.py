"""One source a session: an agent that sends its log events and its spans tells of each call and request twice.

One signal is preferred where a dialect reads both. Which sessions it tells of is remembered, and not stored: after a
restart, or where the other signal comes before the first event of a session, a model request may be on the record
twice. A call is not, as long as its id is remembered.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from onrecord.audit.v1 import audit_pb2

from intake_svc.dialects import claude
from intake_svc.dialects.reading import Reading

PREFERRED: Mapping[str, str] = {claude.DIALECT.engine: "logs"}
"""Of the dialects of which both signals are read, the one that says more: `logs` or `traces`, as OTLP names them."""

_MOST_SESSIONS = 4_096
_MOST_CALLS = 65_536

_Row = TypeVar("_Row", audit_pb2.AuditRow, audit_pb2.CostRow)


@dataclass(slots=True)
class _Session:
    preferred: bool = False
    """Whether the preferred signal tells of it."""
    calls: int = 0
    """How many rows of calls are remembered below."""
    told: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of a call's id: the rows by which the other signal told of it. A model server's ids may repeat."""
    left_out: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of a call's id: the rows of the preferred signal that were left out for it, also when they are sent again."""


class OneSource:
    """Chooses what goes on the record of sessions that two signals tell of. Belongs to one thread."""

    def __init__(
        self,
        preferred: Mapping[str, str] = PREFERRED,
        most_sessions: int = _MOST_SESSIONS,
        most_calls: int = _MOST_CALLS,
    ) -> None:
        """Remembers at most so many sessions, and so many calls of all; the session idle for longest goes first."""
        self._preferred = preferred
        self._most_sessions = most_sessions
        self._most_calls = most_calls
        self._calls = 0
        self._sessions: OrderedDict[tuple[str, str, str], _Session] = OrderedDict()

    def choose(self, reading: Reading, signal: str, principal: str = "") -> tuple[Reading, int]:
        """What of a reading goes on the record, and how many rows do not. Nothing is remembered yet.

        Args:
            reading: what came.
            signal: by which it came.
            principal: who sent it: a session that somebody else names alike is another.
        """
        if reading.engines.isdisjoint(self._preferred) or not self._told_of(reading):
            return reading, 0
        calls = self._passing(reading.calls, signal, principal)
        left_out: dict[str, set[str]] = defaultdict(set)
        calls = tuple(row for row in calls if not self._is_told(row, signal, principal, left_out))
        costs = self._passing(reading.costs, signal, principal)
        intents = self._passing(reading.intents, signal, principal)
        missing = len(reading.calls) + len(reading.costs) - len(calls) - len(costs)
        return replace(reading, calls=calls, costs=costs, intents=intents, ignored=reading.ignored + missing), missing

    def remember(self, reading: Reading, chosen: Reading, signal: str, principal: str = "") -> None:
        """Remembers a reading, once what was chosen of it is safe."""
        if reading.engines.isdisjoint(self._preferred):
            return
        for engine, session_id in self._told_of(reading):
            session = self._session(principal, engine, session_id)
            session.preferred = session.preferred or signal == self._preferred[engine]
        kept = {row.id for row in chosen.calls}
        for row in reading.calls:
            if row.engine in self._preferred and row.provider_call_id:
                session = self._session(principal, row.engine, row.session_id)
                by_preferred = signal == self._preferred[row.engine]
                if by_preferred != (row.id in kept):
                    rows = (session.left_out if by_preferred else session.told)[row.provider_call_id]
                    session.calls += row.id not in rows
                    self._calls += row.id not in rows
                    rows.add(row.id)
        while len(self._sessions) > self._most_sessions or self._calls > self._most_calls:
            _, forgotten = self._sessions.popitem(last=False)
            self._calls -= forgotten.calls

    def _told_of(self, reading: Reading) -> set[tuple[str, str]]:
        """The engines and sessions that a reading tells of, where there is something to choose."""
        found = {(row.engine, row.session_id) for row in (*reading.calls, *reading.intents)}
        found |= {(row.engine, row.session_id) for row in reading.costs}
        found |= {(number.stream.partition(" ")[0], number.session_id) for number in reading.sequence}
        return {each for each in found if each[0] in self._preferred}

    def _passing(self, rows: tuple[_Row, ...], signal: str, principal: str) -> tuple[_Row, ...]:
        """The rows less those of sessions that the preferred signal tells of."""

        def passes(row: _Row) -> bool:
            session = self._sessions.get((principal, row.engine, row.session_id))
            return session is None or not session.preferred or signal == self._preferred[row.engine]

        return tuple(row for row in rows if passes(row))

    def _is_told(self, row: audit_pb2.AuditRow, signal: str, principal: str, left_out: dict[str, set[str]]) -> bool:
        """Whether the other signal has told of a call. `left_out` has those that this reading leaves out."""
        session = self._sessions.get((principal, row.engine, row.session_id))
        call_id = row.provider_call_id
        if session is None or call_id not in session.told or signal != self._preferred[row.engine]:
            return False
        before = session.left_out.get(call_id, set()) | left_out[call_id]
        if row.id not in before and len(before) >= len(session.told[call_id]):
            return False
        left_out[call_id].add(row.id)
        return True

    def _session(self, principal: str, engine: str, session_id: str) -> _Session:
        key = (principal, engine, session_id)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = _Session()
        else:
            self._sessions.move_to_end(key)
        return session
