"""Rows into a log by binary COPY.

COPY goes straight into the table, and no row is written twice on its way. Where it meets a row that the ledger has
already it is taken back to before; then, and as long as such rows come, what the ledger has is looked up first. Nobody
else writes between that and the commit, since the transactions of writers are one after the other.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from audit_svc.ledger.columns import Column, Flag, Number, Time
from audit_svc.ledger.valid_rows import ValidRows, Values
from audit_svc.postgres.open.connection import Connection, transaction
from audit_svc.sql.write.inserts import OTHER_CONTENT, Group, Matching, salts

_OWN = ("position", "recorded_at", "clock_suspect", "recorded_by", "salt")
_OWN_TYPES = ("int8", "int8", "int8", "text", "bytea")
_SAID = "JOIN unnest(?::text[], ?::text[]) AS said (id, recorded_by) USING (id, recorded_by)"

Key = tuple[str, str]
"""(id, recorded_by)."""


class LogTable:
    """A table whose rows never change (the LogTable protocol of audit_svc.sql.write.inserts)."""

    def __init__(self, connection: Connection, name: str, columns: Sequence[Column], *, has_suspects: bool) -> None:
        """has_suspects: whether the table says of rows that their time is suspect."""
        self._connection = connection
        self._name = name
        self._columns = columns
        self._began = [column.name for column in columns].index("created_at")
        self._matching = Matching(columns)
        self._own = [name for name in _OWN if has_suspects or name != "clock_suspect"]
        self._has_suspects = has_suspects
        names = ", ".join(column.name for column in columns)
        self._select = f"SELECT recorded_by, {names}, erased FROM {name} "  # noqa: S608 - names of ours
        self._find = f"SELECT id, recorded_by FROM {name} {_SAID}"  # noqa: S608 - names of ours
        self._last = -1
        self._meets_known = False
        """Whether rows came last that the ledger had already, as after an answer that was lost."""

    def begin(self) -> None:
        """At the begin of a transaction before which somebody else may have written, or one was taken back."""
        ((self._last,),) = self._connection.execute(f"SELECT coalesce(max(position), 0) FROM {self._name}")  # noqa: S608 - ours

    def write(self, groups: Sequence[Group], now_ms: int) -> list[ValidRows]:
        """Inserts the rows of all groups, and returns those of each that are new: see LogTable."""
        said = [self._without_known(group) if group.elsewhere else group.rows for group in groups]
        if not any(said):
            return said
        keys = [
            (id_, group.recorded_by)
            for group, rows in zip(groups, said, strict=True)
            for id_ in rows.values[:: rows.width or 1]
        ]
        is_each_once = len(set(keys)) == len(keys)
        if is_each_once and not self._meets_known and self._copied_all(groups, said, now_ms):
            return said
        ids, names = [id_ for id_, _ in keys], [name for _, name in keys]
        found = self._connection.execute(self._find, (ids, names)).fetchall()
        self._meets_known = bool(found)
        if found or not is_each_once:
            said = self._without_stored(groups, said, found)
        self._copy(groups, said, now_ms)
        return said

    def _copied_all(self, groups: Sequence[Group], said: Sequence[ValidRows], now_ms: int) -> bool:
        """Whether all rows were new. If not, nothing is written."""
        try:
            with transaction(self._connection):  # a savepoint
                self._copy(groups, said, now_ms)
        except psycopg.errors.UniqueViolation:
            return False
        return True

    def _without_known(self, group: Group) -> ValidRows:
        """The rows of a group that do not stand, alike in all, where it says that they may."""
        if not group.rows:
            return group.rows
        rows = group.rows.with_all(self._columns)
        found = self._connection.execute(
            f"{self._select} WHERE id = ANY (?) AND {group.elsewhere}", (rows.values[:: rows.width],)
        ).fetchall()
        return self._matching.without(rows, [each[1:] for each in found]) if found else rows

    def _without_stored(self, groups: Sequence[Group], said: list[ValidRows], found: list[Key]) -> list[ValidRows]:
        """Without the rows whose key the table has, or a row before them; adds to rejections those of other content."""
        ids, names = [id_ for id_, _ in found], [name for _, name in found]
        stored: dict[Key, Values] = {
            (row[1], row[0]): row[1:] for row in self._connection.execute(self._select + _SAID, (ids, names))
        }
        kept = []
        for group, rows in zip(groups, said, strict=True):
            new = set()
            for position, row in zip(rows.positions, rows.with_all(self._columns).rows(), strict=True):
                key = (row[0], group.recorded_by)
                if (known := stored.get(key)) is None:
                    stored[key] = (*row, None)
                    new.add(position)
                elif not self._matching.is_same(known, row):
                    group.rejections.append(rows.rejection(position, row[0], OTHER_CONTENT))
            kept.append(_at(rows, new))
        return kept

    def _copy(self, groups: Sequence[Group], said: Sequence[ValidRows], now_ms: int) -> None:
        if not any(said):
            return
        columns = next(rows.columns for rows in said if rows)
        if any(rows and rows.columns != columns for rows in said):
            columns = self._columns
        names = ", ".join([*self._own, *(column.name for column in columns)])
        types = [kind for name, kind in zip(_OWN, _OWN_TYPES, strict=True) if name in self._own]
        with self._connection.copy(f"COPY {self._name} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([*types, *map(_type_of, columns)])
            write = copy.write_row
            for row in self._rows(groups, said, columns, now_ms):
                write(row)
        self._last += sum(map(len, said))
        for group, rows in zip(groups, said, strict=True):
            if group.bounds and self._has_suspects:
                began = rows.values[self._began :: rows.width or 1]
                group.bounds.suspects += sum(map(group.bounds.are_beyond, began))

    def _rows(
        self, groups: Sequence[Group], said: Sequence[ValidRows], columns: Sequence[Column], now_ms: int
    ) -> Iterator[tuple[Any, ...]]:
        """The values of _OWN and of columns, in the order of their positions."""
        position = self._last
        for group, each in zip(groups, said, strict=True):
            if not each:
                continue
            rows = each if each.columns == columns else each.with_all(columns)
            values, width, name, bounds = rows.values, rows.width, group.recorded_by, group.bounds
            suspect: tuple[int | None, ...] = (None,) if self._has_suspects else ()
            for at, salt in enumerate(salts(len(rows))):
                position += 1
                if bounds and self._has_suspects:
                    is_suspect = bounds.are_beyond(values[at * width + self._began])
                    suspect = (bounds.received_ms if is_suspect else None,)
                yield (position, now_ms, *suspect, name, salt, *values[at * width : (at + 1) * width])


def _type_of(column: Column) -> str:
    if isinstance(column, Flag):
        return "int2"
    return "int8" if isinstance(column, Number | Time) else "text"


def _at(rows: ValidRows, positions: set[int]) -> ValidRows:
    """The rows at positions."""
    if len(positions) == len(rows):
        return rows
    chosen = iter(rows.positions)
    return rows.only(lambda _: next(chosen) in positions)
