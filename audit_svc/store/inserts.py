"""Batches into the tables, inside the transaction that the writer has opened."""

from collections.abc import Iterator, Sequence
from typing import Any

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import StoreRefused
from audit_svc.store.columns import Column
from audit_svc.store.producers import Covered
from audit_svc.store.pruned import pruned_before, refuse_old
from audit_svc.store.rollups import Rollups
from audit_svc.store.rows import (
    COST_COLUMNS,
    SESSION_COLUMNS,
    TOOL_CALL_COLUMNS,
    Accepted,
    Batch,
    rejection,
)
from audit_svc.store.usage import Usage

CHUNKS = (250, 25, 1)
"""Rows of one INSERT, as many as there are. While SQLite runs it, the thread lets go of Python's lock, so that the next
batch is checked meanwhile; with a row each, the two threads would pass the lock to and fro for every row. A statement
beyond 16,384 characters would not be cached."""


_QUERY_COLUMNS = ("caller", "method", "filters", "rows", "duration_ms", "status", "created_at")


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
        """Reads what the ledger is pruned to: anew after each prune."""
        self._pruned_before = pruned_before(self._connection)

    def write(self, batches: Sequence[tuple[Batch, Usage]], now_ms: int) -> list[audit_pb2.RecordResponse]:
        """Writes batches, each with the usage that its rows make, and says of each what became of its rows."""
        self._rollups.begin()
        total, covered = Usage(), Covered(self._connection, now_ms)
        responses = []
        for batch, usage in batches:
            responses.append(self._write(batch, usage, total))
            if batch.producer_id and batch.sequence:
                covered.add(batch.producer_id, batch.first_sequence, batch.sequence)
        covered.write()
        self._rollups.add(total)
        return responses

    def committed(self) -> None:
        """After the COMMIT of what was written."""
        self._rollups.committed()

    def _write(self, batch: Batch, usage: Usage, total: Usage) -> audit_pb2.RecordResponse:
        rejections = list(batch.rejections)
        kept = batch
        if self._pruned_before:
            kept = refuse_old(self._connection, batch, self._pruned_before, rejections)
        sessions = self._write_sessions(kept.sessions, batch.recorded_by, rejections)
        calls = self._tool_calls.write(kept.tool_calls, rejections)
        costs = self._costs.write(kept.costs, rejections)
        if calls < len(batch.tool_calls) or costs < len(batch.costs):
            usage = Usage(self._tool_calls.newest(kept.tool_calls, calls), self._costs.newest(kept.costs, costs))
        total.add(usage)
        stored = sessions + calls + costs
        if batch.queries:
            self._connection.executemany(self._insert_query, batch.queries)
        rejections.sort(key=lambda entry: entry[0])
        refused = len(rejections) - len(batch.rejections)
        return audit_pb2.RecordResponse(
            sequence=batch.sequence,
            stored=stored,
            duplicates=len(batch) - stored - refused,
            rejections=[entry[1] for entry in rejections],
        )

    def _write_sessions(
        self, sessions: Accepted, recorded_by: str, rejections: list[tuple[int, audit_pb2.Rejection]]
    ) -> int:
        stored = 0
        for position, (*values, labels) in zip(sessions.positions, sessions.rows(), strict=True):
            self._connection.execute(self._upsert_session, (*values, recorded_by))
            if not self._connection.changes():
                if recorded_by and self._recorder(values[0]) not in ("", recorded_by):
                    message = "another caller records this session"
                    rejections.append((position, rejection(values[0], audit_pb2.REJECTION_CODE_CONFLICT, message)))
            else:
                stored += 1
                self._connection.execute("DELETE FROM session_labels WHERE session_id = ?", (values[0],))
                rows = [(values[0], key, value) for key, value in labels.items()]
                self._connection.executemany("INSERT INTO session_labels VALUES (?, ?, ?)", rows)
        return stored

    def _recorder(self, session_id: str) -> str:
        found = self._connection.execute("SELECT recorded_by FROM sessions WHERE id = ?", (session_id,))
        return "".join(name for (name,) in found)


class _LogTable:
    """A table whose rows never change."""

    def __init__(self, connection: apsw.Connection, name: str, columns: Sequence[Column]) -> None:
        self._connection = connection
        insert = _insert(name, columns, "INSERT OR IGNORE")
        self._inserts = {rows: insert + f",{_places(columns)}" * (rows - 1) for rows in CHUNKS}
        self._select = f"SELECT {_names(columns)} FROM {name} WHERE id = ?"  # noqa: S608 - names of ours
        self._select_newest = f"SELECT id FROM {name} ORDER BY rowid DESC LIMIT ?"  # noqa: S608 - names of ours
        for sql in (*self._inserts.values(), self._select, self._select_newest):
            prepare(connection, sql)

    def write(self, accepted: Accepted, rejections: list[tuple[int, audit_pb2.Rejection]]) -> int:
        """Inserts rows and returns how many are new; adds those whose id has other content to rejections."""
        before = self._connection.total_changes()
        first = 0
        for rows, insert in self._inserts.items():
            while first + rows <= len(accepted):
                self._connection.execute(insert, accepted.span(first, first + rows))
                first += rows
        stored = self._connection.total_changes() - before
        if stored < len(accepted):
            rejections.extend(self._conflicts(accepted))
        return stored

    def newest(self, accepted: Accepted, stored: int) -> Accepted:
        """After the INSERT: the rows that it stored, which have the highest row numbers, and the first of an id."""
        new = {row_id for (row_id,) in self._connection.execute(self._select_newest, (stored,))}
        values: list[Any] = []
        positions: list[int] = []
        for position, row in zip(accepted.positions, accepted.rows(), strict=True):
            if row[0] in new:
                new.remove(row[0])
                values.extend(row)
                positions.append(position)
        return Accepted(values, accepted.width, positions)

    def _conflicts(self, accepted: Accepted) -> Iterator[tuple[int, audit_pb2.Rejection]]:
        """After the INSERT: the rows that are not what the table has under their id."""
        for position, row in zip(accepted.positions, accepted.rows(), strict=True):
            found = self._connection.execute(self._select, (row[0],)).fetchone()
            if found is None:
                raise AssertionError("a row was ignored for another reason than its id")
            if found != row:
                message = "the ledger has a row with this id and other content"
                yield position, rejection(row[0], audit_pb2.REJECTION_CODE_CONFLICT, message)


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
    """A newer revision wins, if it is of the caller that recorded the session's first, or callers have no names."""
    names = [column.name for column in SESSION_COLUMNS]
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    return (
        f"INSERT INTO sessions ({', '.join(names)}, recorded_by) VALUES ({', '.join('?' * (len(names) + 1))}) "  # noqa: S608 - names of ours
        f"ON CONFLICT (id) DO UPDATE SET {changes}, recorded_by = max(sessions.recorded_by, excluded.recorded_by) "
        "WHERE excluded.revision > sessions.revision "
        "AND ('' IN (sessions.recorded_by, excluded.recorded_by) OR excluded.recorded_by = sessions.recorded_by)"
    )
