"""Rollups, as the writer keeps them: audit_svc.sql.usage.rollups tells of their tables."""

import operator
from collections.abc import Sequence
from typing import Any, Protocol

from audit_svc.ledger import histogram
from audit_svc.ledger.steps import STEPS
from audit_svc.ledger.usage import Sums, Usage, by_step
from audit_svc.sql import writing
from audit_svc.sql.usage.kept_sums import KeptSums
from audit_svc.sql.usage.rollups import KINDS, ROLLUPS, Rollup
from service_kit.bounds import saturated

UPSERT_ROWS = 12
"""Rows of a rollup that one statement writes at most."""
MAX_KNOWN = 4000
"""Rows of the rollups that the writer remembers: some megabytes."""


class Connection(writing.Connection, Protocol):
    """One that tells whether somebody else has written."""

    def data_version(self) -> int:
        """Another number after each transaction of another connection, and the same one after its own."""
        ...


class Rollups:
    """Adds to the rollups. Remembers what it wrote last, since a read for each row would hand over Python's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tables = [_Kept(connection, rollup) for rollup in ROLLUPS]
        self._version: int | None = None
        self.statements = [sql for table in self._tables for sql in table.statements]

    def begin(self) -> None:
        """At the begin of a transaction: forgets what may have been taken back, or changed by somebody else."""
        version, self._version = self._version, None
        known = sum(len(table.known) for table in self._tables)
        if version is None or version != self._connection.data_version() or known > MAX_KNOWN:
            for table in self._tables:
                table.known.clear()

    def add(self, usage: Usage) -> None:
        """Adds usage in the transaction."""
        for table in self._tables:
            sums = usage.calls if table.rollup.kind == "tool_call_usage" else usage.requests
            table.add(by_step(sums, table.rollup.step.ms))

    def committed(self) -> None:
        """After the COMMIT: what was written may be remembered."""
        self._version = self._connection.data_version()


class _Kept:
    """A rollup as the writer keeps it."""

    def __init__(self, connection: writing.Connection, rollup: Rollup) -> None:
        self.rollup = rollup
        self.known: Sums = {}
        self._connection = connection
        self._is_calls = "durations" in rollup.sums
        columns = (*rollup.key, *rollup.sums)
        row = f"({', '.join('?' * len(columns))})"
        changes = ", ".join(f"{name} = excluded.{name}" for name in rollup.sums)
        self._table = KeptSums(rollup.name, rollup.key, rollup.sums)
        self._upserts = [
            f"INSERT INTO {rollup.name} VALUES {', '.join([row] * rows)} "  # noqa: S608 - names of ours
            f"ON CONFLICT ({', '.join(rollup.key)}) DO UPDATE SET {changes}"
            for rows in range(1, UPSERT_ROWS + 1)
        ]
        self.statements = self._upserts

    def add(self, sums: Sums) -> None:
        known, values = self.known, list[Any]()
        stored = self._table.read(self._connection, [key for key in sums if key not in known])
        for key, added in sums.items():
            had = known.get(key) or (self._numbers(stored[key]) if key in stored else None)
            known[key] = now = list(map(operator.add, had, added)) if had else added
            values += key
            values += map(saturated, now)
            if self._is_calls:
                values[-1] = histogram.to_blob(now[-1])
        width = UPSERT_ROWS * len(self.rollup.key + self.rollup.sums)
        for first in range(0, len(values), width):
            part = values[first : first + width]
            self._connection.execute(self._upserts[len(part) * UPSERT_ROWS // width - 1], part)

    def read(self, from_ms: int, until_ms: int) -> Sums:
        rollup, width = self.rollup, len(self.rollup.key)
        rows = self._connection.execute(
            f"SELECT {', '.join((*rollup.key, *rollup.sums))} FROM {rollup.name} "  # noqa: S608 - names of ours
            "WHERE begins_at >= ? AND begins_at < ?",
            (from_ms, until_ms),
        )
        return {row[:width]: self._numbers(row[width:]) for row in rows}

    def _numbers(self, row: Sequence[Any]) -> list[int]:
        return [*row[:-1], histogram.from_blob(row[-1])] if self._is_calls else list(row)


def drop_rollups(connection: writing.Connection, before_ms: int) -> None:
    """Forgets, in the open transaction, the hours that began before a time; what it cuts keeps the later ones."""
    for kind in KINDS:
        tables = {step.name: _Kept(connection, Rollup(kind, step)) for step in STEPS}
        for step in STEPS:
            table, first = tables[step.name], before_ms - before_ms % step.ms
            connection.execute(f"DELETE FROM {table.rollup.name} WHERE begins_at < ?", (before_ms,))  # noqa: S608 - names of ours
            if first < before_ms:
                table.add(by_step(tables[step.made_of].read(first, first + step.ms), step.ms))
