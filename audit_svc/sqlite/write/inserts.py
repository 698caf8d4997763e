"""Batches into the tables, inside the transaction that the writer has opened."""

import json
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import StoreRefused
from audit_svc.ledger.batch import (
    CALL_BEGAN,
    CONTROL_COLUMNS,
    COST_COLUMNS,
    REQUEST_BEGAN,
    SESSION_UPDATED,
    TOOL_CALL_COLUMNS,
    Batch,
    ValidRows,
    Values,
    in_order,
)
from audit_svc.ledger.columns import Column, Problem
from audit_svc.ledger.erased import is_same
from audit_svc.ledger.usage import Usage
from audit_svc.sql.marks import pruned_before
from audit_svc.sqlite.care.pruned import refuse_old
from audit_svc.sqlite.usage.rollups import Rollups
from audit_svc.sqlite.write.clock import mark_suspects
from audit_svc.sqlite.write.producers import ReceivedRanges
from audit_svc.sqlite.write.recorders import OTHERS, Recorders
from audit_svc.sqlite.write.refusals import note_refusals
from audit_svc.sqlite.write.session_table import CONFLICT, OTHER_SESSION, SessionTable
from audit_svc.sqlite.write.summed_sessions import SummedSessions

CHUNKS = (150, 50, 10, 2, 1)
"""Rows of one INSERT, as many as there are. While SQLite runs it, the thread lets go of Python's lock, so that the next
batch is checked meanwhile; with a row each, the two threads would pass the lock to and fro for every row. A statement
beyond 16,384 characters would not be cached."""

Rejections = list[audit_pb2.Rejection]

_OTHER_CONTENT = Problem(
    audit_pb2.REJECTION_CODE_CONFLICT, "the ledger has a row of this caller with this id and other content"
)

_NUMBERED, _BARE = re.compile(r"\?\d+"), re.compile(r"\?(?!\d)")

_QUERY_COLUMNS = ("caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at")
_QUERY_VALUES = operator.attrgetter(*_QUERY_COLUMNS[:-1], "created_at_ms")


class Inserts:
    """The statements that write batches, prepared once and reused: of a log, for each set of columns that rows have."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Prepares the statements.

        Raises:
            StoreRefused: a table or a column is missing.
        """
        self._connection = connection
        self._tool_calls = _LogTable(connection, "tool_call_log", TOOL_CALL_COLUMNS)
        self._costs = _LogTable(connection, "cost_log", COST_COLUMNS)
        self._controls = _LogTable(connection, "control_log", CONTROL_COLUMNS)
        self._sessions = SessionTable(connection)
        self._summed_sessions = SummedSessions(connection)
        self._recorders = Recorders(connection)
        self._rollups = Rollups(connection)
        places = ", ".join("?" * len(_QUERY_COLUMNS))
        self._insert_query = f"INSERT INTO query_log ({', '.join(_QUERY_COLUMNS)}) VALUES ({places})"  # noqa: S608 - names of ours
        own = (*self._sessions.statements, *self._summed_sessions.statements, *self._rollups.statements)
        for sql in (self._insert_query, *own):
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
        self._recorders.begin(
            {batch.recorded_by for batch, _ in batches if len(batch) or batch.numbers or batch.session_numbers}
        )
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
            stored.append(self._write_sessions(batch, refused, suspicious[-1], now_ms))
            if batch.queries:
                self._connection.executemany(self._insert_query, map(_QUERY_VALUES, batch.queries))
            if batch.numbers:
                received.add(batch.recorded_by, *batch.numbers)
            for numbers in batch.session_numbers:
                received.add(batch.recorded_by, *numbers)
        received.write()
        names = [batch.recorded_by for batch in kept]
        elsewhere = [self._recorders.others(name) for name in names]
        calls = self._tool_calls.write([batch.tool_calls for batch in kept], names, elsewhere, rejections, now_ms)
        costs = self._costs.write([batch.model_requests for batch in kept], names, elsewhere, rejections, now_ms)
        controls = self._controls.write([batch.controls for batch in kept], names, elsewhere, rejections, now_ms)
        total = Usage()
        responses = []
        for (batch, usage), sessions, its_calls, its_costs, its_controls, refused, is_suspicious in zip(
            batches, stored, calls, costs, controls, rejections, suspicious, strict=True
        ):
            if is_suspicious:
                self._mark("tool_call_log", its_calls, CALL_BEGAN, batch)
                self._mark("cost_log", its_costs, REQUEST_BEGAN, batch)
            is_whole = len(its_calls) == len(batch.tool_calls) and len(its_costs) == len(batch.model_requests)
            total.add(usage if is_whole else Usage(its_calls, its_costs))
            self._summed_sessions.add(its_calls, its_costs, batch.recorded_by, now_ms)
            if refused:
                note_refusals(self._connection, batch, refused)
            written = sessions + len(its_calls) + len(its_costs) + len(its_controls)
            responses.append(_response(batch, written, refused))
        self._rollups.add(total)
        return responses

    def _mark(self, table: str, rows: ValidRows, time: int, batch: Batch) -> None:
        mark = self._pruned_before
        self.suspect_rows += mark_suspects(
            self._connection, table, rows, time, mark, batch.received_ms, batch.recorded_by
        )

    def committed(self) -> None:
        """After the COMMIT of what was written."""
        self._rollups.committed()
        self._recorders.committed()

    def _write_sessions(self, batch: Batch, rejections: Rejections, is_suspicious: bool, now_ms: int) -> int:
        sessions, recorded_by, stored = batch.sessions, batch.recorded_by, 0
        others = self._recorders.others(recorded_by)
        for position, row in zip(sessions.positions, sessions.rows(), strict=True):
            written = self._sessions.write(row, recorded_by, others, now_ms)
            if written is CONFLICT:
                rejections.append(sessions.rejection(position, row[0], OTHER_SESSION))
            elif written:
                stored += 1
                if is_suspicious:
                    self._mark("sessions", ValidRows([*row], sessions.columns, (position,)), SESSION_UPDATED, batch)
        return stored


class _LogTable:
    """A table whose rows never change."""

    def __init__(self, connection: apsw.Connection, name: str, columns: Sequence[Column]) -> None:
        self._connection = connection
        self._name = name
        self._columns = columns
        self._inserts: dict[str, dict[int, str]] = {}
        """By the names of the columns that rows have: as many sets as messages of a row may be unset together."""
        self._select = f"SELECT {_names(columns)}, erased FROM {name} WHERE id = ? AND recorded_by = ?"  # noqa: S608 - names of ours
        self._select_newest = f"SELECT id, recorded_by FROM {name} ORDER BY position DESC LIMIT ?"  # noqa: S608 - names of ours
        for sql in (*self._inserts_of(columns).values(), self._select, self._select_newest):
            prepare(connection, sql)
        self._elsewhere = {
            others: f"SELECT {_names(columns)}, erased FROM {name} "  # noqa: S608 - names of ours
            f"WHERE id IN (SELECT value FROM json_each(?)) AND {others}"
            for others in OTHERS
        }

    def write(
        self,
        groups: Sequence[ValidRows],
        names: Sequence[str],
        elsewhere: Sequence[str],
        rejections: Sequence[Rejections],
        now_ms: int,
    ) -> list[ValidRows]:
        """Inserts the rows of all groups and returns those of each that are new; adds those whose id has other content
        to the group's rejections.

        names: who recorded each group. elsewhere: of each, where else a row of it may stand (see Recorders.others).
        """
        groups = [self._without_known(*each) if each[1] else each[0] for each in zip(groups, elsewhere, strict=True)]
        before = self._connection.total_changes()
        said = [(name, _names(group.columns), group) for name, group in zip(names, groups, strict=True) if group]
        for (name, _), same in groupby(said, operator.itemgetter(0, 1)):
            alike = [group for *_, group in same]
            self._insert(name, now_ms, alike[0].columns, [group.values for group in alike])
        stored = self._connection.total_changes() - before
        if stored == sum(map(len, groups)):
            return list(groups)
        # They have the highest positions, and of an id that came twice it was the first.
        new = set(self._connection.execute(self._select_newest, (stored,)))
        kept = []
        for name, group, refused in zip(names, groups, rejections, strict=True):
            kept.append(_take(group, name, new))
            if len(kept[-1]) < len(group):
                refused.extend(self._conflicts(group, name))
        return kept

    def _without_known(self, group: ValidRows, others: str) -> ValidRows:
        """The rows of a group that do not stand there, alike in all, under a name that others tells."""
        if not group:
            return group
        group = group.with_all(self._columns)
        ids = json.dumps(group.values[:: group.width])
        found: list[Any] = self._connection.execute(self._elsewhere[others], (ids,)).fetchall()
        if not found:
            return group
        known = {each[:-1] for each in found if each[-1] is None}
        erased = [each for each in found if each[-1] is not None]
        return group.only(lambda row: row not in known and not any(self._is_same(each, row) for each in erased))

    def _is_same(self, found: Values, row: Values) -> bool:
        """Whether a row is the one that was found, with what was erased of it, as far as the table can still tell."""
        if found[-1] is None:
            return found[:-1] == row
        erased = json.loads(found[-1])
        return is_same(found[:-1], row, [at for at, column in enumerate(self._columns) if column.name in erased])

    def _inserts_of(self, columns: Sequence[Column]) -> dict[int, str]:
        """The INSERTs of rows with these columns, by how many rows. Of all rows one caller is told, and one time."""
        names = _names(columns)
        if names not in self._inserts:
            insert = f"INSERT OR IGNORE INTO {self._name} (recorded_by, recorded_at, salt, {names}) VALUES "  # noqa: S608 - names of ours
            row = f"(?1,?2,randomblob(16),{','.join('?' * len(columns))})"
            self._inserts[names] = {rows: insert + ",".join([row] * rows) for rows in CHUNKS}
        return self._inserts[names]

    def _insert(self, name: str, now_ms: int, columns: Sequence[Column], parts: Iterable[list[Any]]) -> None:
        """Inserts rows in the order of parts, the most at once, whatever parts they are in."""
        said, width, inserts = [name, now_ms], len(columns), self._inserts_of(columns)
        most = CHUNKS[0] * width
        waiting: list[Any] = []
        for values in parts:
            first = most - len(waiting) if waiting else 0
            waiting += values[:first]
            if len(waiting) == most:
                self._connection.execute(inserts[CHUNKS[0]], said + waiting)
                waiting = []
            while first + most <= len(values):
                self._connection.execute(inserts[CHUNKS[0]], said + values[first : first + most])
                first += most
            waiting += values[first:]
        first = 0
        for rows, insert in inserts.items():
            while first + rows * width <= len(waiting):
                self._connection.execute(insert, said + waiting[first : first + rows * width])
                first += rows * width

    def _conflicts(self, accepted: ValidRows, name: str) -> Iterator[audit_pb2.Rejection]:
        """After the INSERT: the rows that are not what the table has under their id of the same caller."""
        for position, row in zip(accepted.positions, accepted.with_all(self._columns).rows(), strict=True):
            found: Any = self._connection.execute(self._select, (row[0], name)).fetchone()
            if found is None:
                raise AssertionError("a row was ignored for another reason than its id")
            if not self._is_same(found, row):
                yield accepted.rejection(position, row[0], _OTHER_CONTENT)


def _response(batch: Batch, stored: int, rejections: Rejections) -> audit_pb2.RecordResponse:
    refused = len(rejections) - len(batch.rejections)
    return audit_pb2.RecordResponse(
        range=audit_pb2.SequenceRange(**batch.numbers._asdict()) if batch.numbers else None,
        stored=stored,
        duplicates=len(batch) - stored - refused,
        rejections=in_order(rejections),
    )


def _take(accepted: ValidRows, name: str, new: set[tuple[Any, ...]]) -> ValidRows:
    """The first row of each (id, name) in new; removes those from new."""

    def is_new(row: Values) -> bool:
        key = (row[0], name)
        is_one = key in new
        new.discard(key)
        return is_one

    return accepted.only(is_new)


def prepare(connection: apsw.Connection, sql: str) -> None:
    """Compiles sql into the connection's cache of statements without running it.

    Raises:
        StoreRefused: it does not fit the schema.
    """
    cursor = connection.cursor()
    cursor.exec_trace = _never_run
    try:
        cursor.execute(sql, (None,) * (len(set(_NUMBERED.findall(sql))) + len(_BARE.findall(sql))))
    except apsw.ExecTraceAbort:
        pass
    except apsw.SQLError as error:
        raise StoreRefused(
            f"the database does not have the tables that rows go into ({error}): run migrate up"
        ) from None


def _never_run(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
    return False


def _names(columns: Sequence[Column]) -> str:
    return ", ".join(column.name for column in columns)
