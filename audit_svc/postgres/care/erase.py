"""Erasing in PostgreSQL's ledger, by a function, since the service's role may not change rows of logs itself.

What was erased is gone from every answer at once. PostgreSQL itself keeps the old version of a row in the table's file
until it vacuums the table, in its write-ahead log until that is recycled, and in backups: see docs/operations.md.
"""

from typing import Any

from audit_svc.ledger.clock import wall_ms
from audit_svc.seal.leaf import Kind
from audit_svc.sql.care import erase as shared
from audit_svc.sql.care.erase import kept_of
from audit_svc.sql.writing import Connection


class Erase(shared.Erase):
    """One erasure."""

    @property
    def has_written(self) -> bool:
        """Whether texts were erased, which the database's log still has."""
        return bool(self._erased.rows)

    def _erase(self, connection: Connection, kind: Kind, rows: list[Any]) -> None:
        positions, kept = [row[1] for row in rows], [kept_of(kind, row) for row in rows]
        erased = connection.execute(
            "SELECT erase_rows(?, ?, ?, ?, ?, ?)",
            (kind.name, positions, kept, self.wanted.by, self.wanted.reason, wall_ms()),
        ).fetchall()
        if len(erased) != len(rows):
            raise AssertionError("the database keeps texts that an erasure found")
