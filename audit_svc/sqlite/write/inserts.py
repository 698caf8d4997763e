"""Batches into the tables, inside the transaction that the writer has opened."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import StoreRefused
from audit_svc.ledger.batch import (
    CALL_BEGAN,
    COST_COLUMNS,
    REQUEST_BEGAN,
    SESSION_COLUMNS,
    SESSION_UPDATED,
    TOOL_CALL_COLUMNS,
    Batch,
    ValidRows,
    in_order,
)
from audit_svc.ledger.columns import Column, Problem
from audit_svc.ledger.usage import Usage
from audit_svc.sqlite.care.pruned import pruned_before, refuse_old
from audit_svc.sqlite.usage.rollups import Rollups
from audit_svc.sqlite.write.clock import mark_suspects
from audit_svc.sqlite.write.producers import ReceivedRanges
from audit_svc.sqlite.write.refusals import note_refusals

CHUNKS = (250, 50, 10, 2, 1)
"""Rows of one INSERT, as many as there are. While SQLite runs it, the thread lets go of Python's lock, so that the next
batch is checked meanwhile; with a row each, the two threads would pass the lock to and fro for every row. A statement
beyond 16,384 characters would not be cached."""

Rejections = list[audit_pb2.Rejection]

_OTHER_CONTENT = Problem(audit_pb2.REJECTION_CODE_CONFLICT, "the ledger has a row with this id and other content")
_OTHER_RECORDER = Problem(audit_pb2.REJECTION_CODE_CONFLICT, "another caller records this session")


_QUERY_COLUMNS = ("caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at")
_QUERY_VALUES = operator.attrgetter(*_QUERY_COLUMNS[:-1], "created_at_ms")


class Inserts:
    """The statements that write batches, prepared once and reused."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Prepares the statements.

        Raises:
            StoreRefused: a table or a column is missing.
        """
        self._connection = connection
        self._tool_calls = _LogTable(connection, "tool_call_log", TOOL_CALL_COLUMNS)
        self._costs = _LogTable(connection, "cost_log", COST_COLUMNS)
        self._upsert_session = _upsert_session()
        self._rollups = Rollups(connection)
        places = ", ".join("?" * len(_QUERY_COLUMNS))
        self._insert_query = f"INSERT INTO query_log ({', '.join(_QUERY_COLUMNS)}) VALUES ({places})"  # noqa: S608 - names of ours
        for sql in (self._upsert_session, self._insert_query, *self._rollups.statements):
            prepare(connection, sql)
        self.read_mark()

    def read_mark(self) -> None:
        """Reads up to when the ledger is pruned. Call it again after each prune."""
        self._pruned_before = pruned_before(self._connection)
        self.suspect_rows = 0
        """How many rows of the last write() have a time that the ledger's clock contradicts."""

    def write(self, batches: Sequence[tuple[Batch, Usage]], now_ms: int) -> list[audit_pb2.RecordResponse]:
        """Writes batches, each with the usage of its rows, and returns a response for each.

        The rows of all batches are inserted together: many producers with a few rows each cost what one with many does.
        """
        self._rollups.begin()
        self.suspect_rows = 0
        received = ReceivedRanges(self._connection, now_ms)
        rejections = [list(batch.rejections) for batch, _ in batches]
        kept, stored, suspicious = [], [], []
        for (batch, _), refused in zip(batches, rejections, strict=True):
            has_old = False
            if self._pruned_before:
                batch, has_old = refuse_old(self._connection, batch, self._pruned_before, refused)
            kept.append(batch)
            suspicious.append(has_old or batch.is_ahead)
            stored.append(self._write_sessions(batch, refused, suspicious[-1]))
            if batch.queries:
                self._connection.executemany(self._insert_query, map(_QUERY_VALUES, batch.queries))
            if batch.numbers:
                received.add(*batch.numbers)
        received.write()
        calls = self._tool_calls.write([batch.tool_calls for batch in kept], rejections)
        costs = self._costs.write([batch.model_requests for batch in kept], rejections)
        total = Usage()
        responses = []
        for (batch, usage), sessions, its_calls, its_costs, refused, is_suspicious in zip(
            batches, stored, calls, costs, rejections, suspicious, strict=True
        ):
            if is_suspicious:
                self._mark("tool_call_log", its_calls, CALL_BEGAN, batch.received_ms)
                self._mark("cost_log", its_costs, REQUEST_BEGAN, batch.received_ms)
            is_whole = len(its_calls) == len(batch.tool_calls) and len(its_costs) == len(batch.model_requests)
            total.add(usage if is_whole else Usage(its_calls, its_costs))
            if refused:
                note_refusals(self._connection, batch, refused)
            responses.append(_response(batch, sessions + len(its_calls) + len(its_costs), refused))
        self._rollups.add(total)
        return responses

    def _mark(self, table: str, rows: ValidRows, time: int, received_ms: int) -> None:
        mark = self._pruned_before
        self.suspect_rows += mark_suspects(self._connection, table, rows, time, mark, received_ms)

    def committed(self) -> None:
        """After the COMMIT of what was written."""
        self._rollups.committed()

    def _write_sessions(self, batch: Batch, rejections: Rejections, is_suspicious: bool) -> int:
        sessions, recorded_by, stored = batch.sessions, batch.recorded_by, 0
        for position, (*values, labels) in zip(sessions.positions, sessions.rows(), strict=True):
            self._connection.execute(self._upsert_session, (*values, recorded_by))
            if not self._connection.changes():
                if recorded_by and self._recorder(values[0]) not in ("", recorded_by):
                    rejections.append(sessions.rejection(position, values[0], _OTHER_RECORDER))
            else:
                stored += 1
                self._connection.execute("DELETE FROM session_labels WHERE session_id = ?", (values[0],))
                rows = [(values[0], key, value) for key, value in labels.items()]
                self._connection.executemany("INSERT INTO session_labels VALUES (?, ?, ?)", rows)
                if is_suspicious:
                    alone = ValidRows([*values, labels], sessions.width, (position,))
                    self._mark("sessions", alone, SESSION_UPDATED, batch.received_ms)
        return stored

    def _recorder(self, session_id: str) -> str:
        found = self._connection.execute("SELECT recorded_by FROM sessions WHERE id = ?", (session_id,))
        return "".join(name for (name,) in found)


class _LogTable:
    """A table whose rows never change."""

    def __init__(self, connection: apsw.Connection, name: str, columns: Sequence[Column]) -> None:
        self._connection = connection
        self._width = len(columns)
        insert = _insert(name, columns, "INSERT OR IGNORE")
        self._inserts = {rows: insert + f",{_places(columns)}" * (rows - 1) for rows in CHUNKS}
        self._select = f"SELECT {_names(columns)} FROM {name} WHERE id = ?"  # noqa: S608 - names of ours
        self._select_newest = f"SELECT id FROM {name} ORDER BY rowid DESC LIMIT ?"  # noqa: S608 - names of ours
        for sql in (*self._inserts.values(), self._select, self._select_newest):
            prepare(connection, sql)

    def write(self, groups: Sequence[ValidRows], rejections: Sequence[Rejections]) -> list[ValidRows]:
        """Inserts the rows of all groups and returns those of each that are new; adds those whose id has other content
        to the group's rejections.
        """
        before = self._connection.total_changes()
        self._insert([group.values for group in groups])
        stored = self._connection.total_changes() - before
        if stored == sum(map(len, groups)):
            return list(groups)
        # They have the highest row numbers, and of an id that came twice it was the first.
        new = {row_id for (row_id,) in self._connection.execute(self._select_newest, (stored,))}
        kept = []
        for group, refused in zip(groups, rejections, strict=True):
            kept.append(_take(group, new))
            if len(kept[-1]) < len(group):
                refused.extend(self._conflicts(group))
        return kept

    def _insert(self, parts: Iterable[list[Any]]) -> None:
        """Inserts rows in the order of parts, the most at once, whatever parts they are in."""
        most = CHUNKS[0] * self._width
        waiting: list[Any] = []
        for values in parts:
            first = most - len(waiting) if waiting else 0
            waiting += values[:first]
            if len(waiting) == most:
                self._connection.execute(self._inserts[CHUNKS[0]], waiting)
                waiting = []
            while first + most <= len(values):
                self._connection.execute(self._inserts[CHUNKS[0]], values[first : first + most])
                first += most
            waiting += values[first:]
        first = 0
        for rows, insert in self._inserts.items():
            while first + rows * self._width <= len(waiting):
                self._connection.execute(insert, waiting[first : first + rows * self._width])
                first += rows * self._width

    def _conflicts(self, accepted: ValidRows) -> Iterator[audit_pb2.Rejection]:
        """After the INSERT: the rows that are not what the table has under their id."""
        for position, row in zip(accepted.positions, accepted.rows(), strict=True):
            found = self._connection.execute(self._select, (row[0],)).fetchone()
            if found is None:
                raise AssertionError("a row was ignored for another reason than its id")
            if found != row:
                yield accepted.rejection(position, row[0], _OTHER_CONTENT)


def _response(batch: Batch, stored: int, rejections: Rejections) -> audit_pb2.RecordResponse:
    refused = len(rejections) - len(batch.rejections)
    return audit_pb2.RecordResponse(
        range=audit_pb2.SequenceRange(**batch.numbers._asdict()) if batch.numbers else None,
        stored=stored,
        duplicates=len(batch) - stored - refused,
        rejections=in_order(rejections),
    )


def _take(accepted: ValidRows, new: set[str]) -> ValidRows:
    """The first row of each id in new; removes those ids from new."""
    values: list[Any] = []
    positions: list[int] = []
    for position, row in zip(accepted.positions, accepted.rows(), strict=True):
        if row[0] in new:
            new.remove(row[0])
            values.extend(row)
            positions.append(position)
    return replace(accepted, values=values, positions=positions)


def prepare(connection: apsw.Connection, sql: str) -> None:
    """Compiles sql into the connection's cache of statements without running it.

    Raises:
        StoreRefused: it does not fit the schema.
    """
    cursor = connection.cursor()
    cursor.exec_trace = _never_run
    try:
        cursor.execute(sql, (None,) * sql.count("?"))
    except apsw.ExecTraceAbort:
        pass
    except apsw.SQLError as error:
        raise StoreRefused(
            f"the database does not have the tables that rows go into ({error}): run migrate up"
        ) from None


def _never_run(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
    return False


def _insert(table: str, columns: Sequence[Column], verb: str = "INSERT") -> str:
    return f"{verb} INTO {table} ({_names(columns)}) VALUES {_places(columns)}"


def _places(columns: Sequence[Column]) -> str:
    return f"({','.join('?' * len(columns))})"


def _names(columns: Sequence[Column]) -> str:
    return ", ".join(column.name for column in columns)


def _upsert_session() -> str:
    """A newer revision wins, if the session's first recorder sent it, or callers have no names."""
    names = [column.name for column in SESSION_COLUMNS]
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    return (
        f"INSERT INTO sessions ({', '.join(names)}, recorded_by) VALUES ({', '.join('?' * (len(names) + 1))}) "  # noqa: S608 - names of ours
        f"ON CONFLICT (id) DO UPDATE SET {changes}, recorded_by = max(sessions.recorded_by, excluded.recorded_by) "
        "WHERE excluded.revision > sessions.revision "
        "AND ('' IN (sessions.recorded_by, excluded.recorded_by) OR excluded.recorded_by = sessions.recorded_by)"
    )
