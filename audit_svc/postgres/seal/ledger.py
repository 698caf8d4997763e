"""A ledger in PostgreSQL as the seal reads it: see seal.ledger.SealedLedger."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.postgres.open.connection import Connection, connect, translated
from audit_svc.postgres.open.spelling import spelled
from audit_svc.postgres.seal import leaves
from audit_svc.seal.leaf import Kind
from audit_svc.seal.ledger import Row
from audit_svc.seal.sql_ledger import SqlSealedLedger

_AT_ONCE = 8192
"""Rows of one answer: some 8 MiB."""


class PostgresSealedLedger(SqlSealedLedger):
    """A connection that only reads."""

    labels = (
        "(SELECT coalesce('{' || string_agg(to_json(key) || ':' || to_json(value), ',' ORDER BY key) || '}', '{}') "
        "FROM session_labels x WHERE x.session_id = s.id AND x.recorded_by = s.recorded_by)"
    )

    def __init__(self, connection: Connection) -> None:
        connection.raw.read_only = True
        connection.raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._connection = connection

    @classmethod
    def open(cls, url: str, token: CancelToken | None = None) -> "PostgresSealedLedger":
        """token: gives its connection up when it is cancelled. Raises StoreRefused, StoreUnavailable: as connect()."""
        return cls(connect(url, token=token))

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    @contextmanager
    def moment(self) -> Iterator[None]:
        """What the body reads is of one moment of all tables."""
        with translated(), self._connection.raw.transaction():
            yield

    def leaves_after(
        self, kind: Kind, after: int, until: int | None = None, limit: int | None = None
    ) -> Generator[Row]:
        """Rows behind a position, up to and with another."""
        position = kind.column("position")
        where = f"{position} > ?1" if until is None else f"{position} > ?1 AND {position} <= ?3"
        sql = f"{leaves.select(kind, where)} LIMIT ?2"
        left = limit
        while left is None or left > 0:
            wanted = _AT_ONCE if left is None else min(left, _AT_ONCE)
            found = self._all(sql, after, wanted, *(() if until is None else (until,)))
            yield from self._whole(kind, found)
            if len(found) < wanted:
                return
            after = found[-1][0]
            left = None if left is None else left - wanted

    def _leaves(self, kind: Kind, where: str, *values: Any) -> Iterator[Row]:
        return self._whole(kind, self._all(leaves.select(kind, where), *values))

    def _whole(self, kind: Kind, rows: list[Any]) -> Iterator[Row]:
        """The rows with the leaves that the database has left out."""
        for at, said in rows:
            yield at, kind.encode(self.row(kind, at)) if said is None else bytes(said)

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with translated():
            cursor = psycopg.RawCursor(self._connection.raw)
            # bytes in text are twice as long
            return cursor.execute(spelled(sql).encode(), values or None, binary=True).fetchall()

    def _each(self, sql: str, *values: Any) -> Iterable[Any]:
        with translated(), psycopg.RawServerCursor(self._connection.raw, "each") as cursor:
            cursor.execute(spelled(sql).encode(), values or None)
            yield from cursor
