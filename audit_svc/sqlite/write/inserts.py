"""Rows into the logs of the file, by the prepared INSERTs of many rows each."""

import json
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import StoreRefused
from audit_svc.ledger.columns import Column
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.valid_rows import NO_ROWS, ValidRows, Values
from audit_svc.sql.write import inserts as shared
from audit_svc.sql.write.clock import mark_suspects
from audit_svc.sql.write.inserts import OTHER_CONTENT, Group, Matching, salts
from audit_svc.sql.write.recorders import OTHERS
from audit_svc.sql.write.rollups import Rollups

CHUNKS = (150, 50, 10, 2, 1)
"""Rows of one INSERT, as many as there are. While SQLite runs it, the thread lets go of Python's lock, so that the next
batch is checked meanwhile; with a row each, the two threads would pass the lock to and fro for every row. A statement
beyond 16,384 characters would not be cached."""

_NUMBERED, _BARE = re.compile(r"\?\d+"), re.compile(r"\?(?!\d)")


class Inserts(shared.Inserts):
    """The statements that write batches, prepared once and reused: of a log, for each set of columns that rows have."""

    def __init__(self, connection: apsw.Connection) -> None:
        """Prepares the statements.

        Raises:
            StoreRefused: a table or a column is missing.
        """
        rollups = Rollups(connection)
        for sql in rollups.statements:
            prepare(connection, sql)
        tables = (
            _LogTable(connection, "tool_call_log", TOOL_CALL_COLUMNS),
            _LogTable(connection, "cost_log", COST_COLUMNS),
            _LogTable(connection, "control_log", CONTROL_COLUMNS),
        )
        super().__init__(connection, tables, rollups, lambda sql: prepare(connection, sql))


class _LogTable:
    """A table whose rows never change."""

    def __init__(self, connection: apsw.Connection, name: str, columns: Sequence[Column]) -> None:
        self._connection = connection
        self._name = name
        self._columns = columns
        self._began = [column.name for column in columns].index("created_at")
        self._matching = Matching(columns)
        self._inserts: dict[str, dict[int, str]] = {}
        """By the names of the columns that rows have: as many sets as messages of a row may be unset together."""
        self._comparisons: dict[str, dict[int, str]] = {}
        """By the same names: see _comparisons_of()."""
        self._select = f"SELECT {_names(columns)}, erased FROM {name} WHERE id = ? AND recorded_by = ?"  # noqa: S608 - names of ours
        self._select_newest = f"SELECT id, recorded_by FROM {name} ORDER BY position DESC LIMIT ?"  # noqa: S608 - names of ours
        for sql in (*self._inserts_of(columns).values(), self._select, self._select_newest):
            prepare(connection, sql)
        self._elsewhere = {
            others: f"SELECT {_names(columns)}, erased FROM {name} "  # noqa: S608 - names of ours
            f"WHERE id IN (SELECT value FROM json_each(?)) AND {others}"
            for others in OTHERS
        }

    def write(self, groups: Sequence[Group], now_ms: int) -> list[ValidRows]:
        """Inserts the rows of all groups and returns those of each that are new: see LogTable."""
        said = [self._without_known(group) if group.elsewhere else group.rows for group in groups]
        before = self._connection.total_changes()
        named = [
            (group.recorded_by, _names(rows.columns), rows) for group, rows in zip(groups, said, strict=True) if rows
        ]
        for (name, _), same in groupby(named, operator.itemgetter(0, 1)):
            alike = [rows for *_, rows in same]
            self._insert(name, now_ms, alike[0].columns, [rows.values for rows in alike])
        stored = self._connection.total_changes() - before
        if stored < sum(map(len, said)):
            # They have the highest positions, and of an id that came twice it was the first.
            new = set(self._connection.execute(self._select_newest, (stored,)))
            for at, (group, rows) in enumerate(zip(groups, said, strict=True)):
                said[at] = _take(rows, group.recorded_by, new)
                if len(said[at]) < len(rows):
                    group.rejections.extend(self._conflicts(rows, group.recorded_by))
        for group, rows in zip(groups, said, strict=True):
            if group.bounds:
                mark_suspects(self._connection, self._name, rows, self._began, group.bounds, group.recorded_by)
        return said

    def _without_known(self, group: Group) -> ValidRows:
        """The rows of a group that do not stand, alike in all, where it says that they may."""
        if not group.rows:
            return group.rows
        rows = group.rows.with_all(self._columns)
        ids = json.dumps(rows.values[:: rows.width])
        found: list[Any] = self._connection.execute(self._elsewhere[group.elsewhere], (ids,)).fetchall()
        return self._matching.without(rows, found) if found else rows

    def _inserts_of(self, columns: Sequence[Column]) -> dict[int, str]:
        """The INSERTs of rows with these columns, by how many rows. Of all rows one caller is told, and one time."""
        names = _names(columns)
        if names not in self._inserts:
            insert = f"INSERT OR IGNORE INTO {self._name} (recorded_by, recorded_at, salt, {names}) VALUES "  # noqa: S608 - names of ours
            places = ",".join("?" * len(columns))
            # From the highest number on, since a bare ? is one more than the highest before it. SQL makes no salts:
            # where a statement of many rows calls a function, SQLite copies each page that the statement is to change.
            self._inserts[names] = {
                rows: insert + ",".join(f"(?1,?2,?{salt},{places})" for salt in range(rows + 2, 2, -1))
                for rows in CHUNKS
            }
        return self._inserts[names]

    def _insert(self, name: str, now_ms: int, columns: Sequence[Column], parts: Iterable[list[Any]]) -> None:
        """Inserts rows in the order of parts."""
        inserts = self._inserts_of(columns)
        for rows, values in _chunks(parts, len(columns)):
            self._connection.execute(inserts[rows], [name, now_ms, *salts(rows), *values])

    def _comparisons_of(self, columns: Sequence[Column]) -> dict[int, str]:
        """What finds those of so many rows with these columns that do not stand alike under their ids of one caller.

        SQLite compares, and the thread lets go of Python's lock meanwhile.
        """
        names = _names(columns)
        if names not in self._comparisons:
            said = {column: f"column{number}" for number, column in enumerate(columns, 1)}
            alike = " AND ".join(f"{column.name} IS {said.get(column, 'NULL')}" for column in self._columns)
            row = f"({','.join('?' * len(columns))})"
            self._comparisons[names] = {
                rows: f"SELECT column1, ?1 FROM (VALUES {','.join([row] * rows)}) "  # noqa: S608 - names of ours
                f"LEFT JOIN {self._name} ON id = column1 AND recorded_by = ?1 WHERE NOT (erased IS NULL AND {alike})"
                for rows in CHUNKS
            }
        return self._comparisons[names]

    def _conflicts(self, accepted: ValidRows, name: str) -> Iterator[audit_pb2.Rejection]:
        """After the INSERT: the rows that are not what the table has under their id of the same caller."""
        comparisons = self._comparisons_of(accepted.columns)
        others = {
            found
            for rows, values in _chunks([accepted.values], accepted.width)
            for found in self._connection.execute(comparisons[rows], [name, *values])
        }
        rows = accepted.only(lambda row: (row[0], name) in others) if others else NO_ROWS
        for position, row in zip(rows.positions, rows.with_all(self._columns).rows(), strict=True):
            found: Any = self._connection.execute(self._select, (row[0], name)).fetchone()
            if found is None:
                raise AssertionError("a row was ignored for another reason than its id")
            if not self._matching.is_same(found, row):
                yield accepted.rejection(position, row[0], OTHER_CONTENT)


def _chunks(parts: Iterable[list[Any]], width: int) -> Iterator[tuple[int, list[Any]]]:
    """How many rows and their values, the most at once, whatever parts they are in: each a number of CHUNKS."""
    most, waiting = CHUNKS[0] * width, list[Any]()
    for values in parts:
        first = most - len(waiting) if waiting else 0
        waiting += values[:first]
        if len(waiting) == most:
            yield CHUNKS[0], waiting
            waiting = []
        while first + most <= len(values):
            yield CHUNKS[0], values[first : first + most]
            first += most
        waiting += values[first:]
    first = 0
    for rows in CHUNKS:
        while first + rows * width <= len(waiting):
            yield rows, waiting[first : first + rows * width]
            first += rows * width


def _take(accepted: ValidRows, name: str, new: set[tuple[Any, ...]]) -> ValidRows:
    """The first row of each (id, name) in new; removes those from new."""
    if not new:  # as after an answer that was lost: all were sent again
        return replace(accepted, values=[], positions=())

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
