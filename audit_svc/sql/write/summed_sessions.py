"""The sessions that no producer keeps: what their calls and requests sum up to, and the labels that are told of them.

A row counts once, in the transaction that stores it, so that what is sent again changes nothing and no producer has to
remember a session. Such a session has revision 0 and no status, and its turns are not counted.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from audit_svc.ledger.columns import MAX_LABELS, MAX_TIME_MS, UNKNOWN, Column
from audit_svc.ledger.tables import COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.ledger.valid_rows import ValidRows, Values
from audit_svc.sql.write.session_labels import SessionLabels
from audit_svc.sql.writing import Connection, larger, smaller

SOURCES = frozenset(("otlp", "hook"))
"""By which ways rows come whose producer keeps no sessions."""

_SUMS = (
    "tool_calls",
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "known_cost_micros",
    "unpriced_requests",
)
_NAMES = ("recorded_by", "recorded_at", "id", "engine", "model", "created_at", "updated_at", *_SUMS)
_LATER = "excluded.updated_at >= sessions.updated_at"
_UPSERT = (
    f"INSERT INTO sessions (revision, turns, {', '.join(_NAMES)}) "  # noqa: S608 - names of ours
    f"VALUES (0, 0, {', '.join('?' * len(_NAMES))}) ON CONFLICT (id, recorded_by) DO UPDATE SET "
    + "".join(
        f"{name} = CASE WHEN sessions.{name} = '' OR {_LATER} AND excluded.{name} <> '' "
        f"THEN excluded.{name} ELSE sessions.{name} END, "
        for name in ("engine", "model")
    )
    + f"recorded_at = excluded.recorded_at, created_at = {smaller('sessions.created_at', 'excluded.created_at')}, "
    f"updated_at = {larger('sessions.updated_at', 'excluded.updated_at')}, "
    f"{', '.join(f'{name} = sessions.{name} + excluded.{name}' for name in _SUMS)} "
    "WHERE sessions.revision = 0"  # whoever keeps a session counts for himself
)
_LABELS_TOLD = (
    "SELECT revision, (SELECT max(updated_at) FROM session_log l WHERE (l.id, l.recorded_by) = (s.id, s.recorded_by)) "
    "FROM sessions s WHERE s.id = ? AND s.recorded_by = ?"
)
_SESSION_NAMES = [column.name for column in SESSION_COLUMNS]
_WHAT = ("session_id", "source", "engine", "model", "created_at", "duration_ms")
_COUNTED = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost_micros")


class SummedSessions:
    """Adds rows to the sessions that they belong to, inside the transaction that the writer has opened."""

    statements = (_UPSERT, _LABELS_TOLD, *SessionLabels.statements)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._labels = SessionLabels(connection)

    def add(self, calls: ValidRows, costs: ValidRows, recorded_by: str, now_ms: int) -> None:
        """Adds what rows sum up to. calls, costs: those of the caller recorded_by that are new in the ledger."""
        sessions: dict[str, _Session] = {}
        for session_id, row in _of_others(TOOL_CALL_COLUMNS, calls, _WHAT):
            sessions.setdefault(session_id, _Session()).add(row, [1])
        for session_id, row in _of_others(COST_COLUMNS, costs, _WHAT + _COUNTED):
            *tokens, cost = row[len(_WHAT) - 2 :]
            sessions.setdefault(session_id, _Session()).add(row, [0, 1, *tokens, cost or 0, cost is None])
        if sessions:
            rows = [(recorded_by, now_ms, name, *session.values()) for name, session in sessions.items()]
            self._connection.executemany(_UPSERT, rows)

    def label(self, row: Values, recorded_by: str, others: str, now_ms: int) -> bool:
        """Adds the labels of a row of revision 0; returns whether they are new. Its counts and its status say nothing.

        What the latest row says of a key stands. others: where else the same row may stand (see Recorders.others).
        """
        *values, labels = row
        said = dict(zip(_SESSION_NAMES, values, strict=True))
        session_id, times = said["id"], (said["created_at"], said["updated_at"])
        if others and self._labels.are_in(others, session_id, labels):
            return False
        names = (recorded_by, now_ms, session_id, said["engine"], said["model"])
        self._connection.execute(_UPSERT, (*names, *times, *[0] * len(_SUMS)))
        revision, told_at = self._connection.execute(_LABELS_TOLD, (session_id, recorded_by)).fetchall()[0]
        if revision:
            return False
        known = self._labels.of(session_id, recorded_by)
        both = known | labels if told_at is None or said["updated_at"] >= told_at else labels | known
        both = dict(list(both.items())[:MAX_LABELS])
        if told_at is not None and both == known:
            return False
        self._labels.write(session_id, recorded_by, both)
        kept = {"id", "engine", "model", "created_at", "updated_at"}
        state = [None if name == "status" else said[name] if name in kept else 0 for name in _SESSION_NAMES]
        self._labels.log(recorded_by, now_ms, state, both)
        return True


class _Session:
    """What the rows of a batch sum up to."""

    def __init__(self) -> None:
        self._engine, self._model = "", ""
        self._began_ms, self._ended_ms = 2**63 - 1, 0
        self._sums = [0] * len(_SUMS)

    def add(self, row: Sequence[Any], counts: Sequence[int]) -> None:
        """Adds a row. row: as _of_others() gives it. counts: what it adds to each of _SUMS, in their order."""
        engine, model, began_ms, took_ms = row[:4]
        ended_ms = min(began_ms + took_ms, MAX_TIME_MS)
        if ended_ms >= self._ended_ms:
            self._engine, self._ended_ms = engine, ended_ms
            self._model = model or self._model
        self._model = self._model or model
        self._began_ms = min(self._began_ms, began_ms)
        for place, count in enumerate(counts):
            self._sums[place] += min(count, MAX_SUMMED)

    def values(self) -> tuple[Any, ...]:
        """Its values, from the engine on."""
        return (self._engine, self._model, self._began_ms, self._ended_ms, *self._sums)


def _of_others(columns: Sequence[Column], rows: ValidRows, names: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """The session and the values of the other names, without the source, of each row that came by one of SOURCES."""
    if not rows:
        return
    places = {column.name: place for place, column in enumerate(columns)}
    session_at, source_at, *others = (places[name] for name in names)
    if SOURCES.isdisjoint(rows.values[source_at :: rows.width]):
        return
    for row in rows.rows():
        if row[source_at] in SOURCES and row[session_at] != UNKNOWN:
            yield row[session_at], [row[place] for place in others]
