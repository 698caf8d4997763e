"""A ledger in PostgreSQL as the seal reads it: see seal.ledger.SealedLedger."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.postgres.open.connection import Connection, connect, translated
from audit_svc.postgres.open.spelling import spelled
from audit_svc.postgres.seal import leaves
from audit_svc.seal import leaf
from audit_svc.seal.leaf import Kind
from audit_svc.seal.ledger import Row
from audit_svc.seal.sql_ledger import SqlSealedLedger

_AT_ONCE = 8192
"""Rows of one answer: some 8 MiB."""


class PostgresSealedLedger(SqlSealedLedger):
    """A connection that only reads."""

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

    def leaf_at(self, kind: Kind, position: int) -> bytes | None:
        """A row's leaf as the ledger has it now."""
        found = self._whole(kind, self._all(leaves.select(kind, f"{kind.column('position')} = ?"), position))
        return next((said for _, said in found), None)

    def leaves_of(self, kind: Kind, id_: str, recorded_by: str | None) -> list[tuple[int, bytes]]:
        """The positions and leaves of the rows of an id."""
        who, values = ("", (id_,)) if recorded_by is None else (" AND recorded_by = ?2", (id_, recorded_by))
        found = self._all(leaves.select(kind, f"id = ?1{who}"), *values)
        return [(at, said) for at, said in self._whole(kind, found)]

    def _whole(self, kind: Kind, rows: list[Any]) -> Iterator[Row]:
        """The rows with the leaves that the database has left out."""
        for at, said in rows:
            yield at, kind.encode(self.row(kind, at)) if said is None else bytes(said)

    def changed_sessions(self, limit: int) -> list[str]:
        """The ids of sessions that are not what their last sealed revision says."""
        names = [name for name in leaf.BY_NAME["session"].columns if name not in {"position", "labels"}]
        alike = " AND ".join(f"s.{name} IS NOT DISTINCT FROM l.{name}" for name in names)
        labels = (
            "(SELECT coalesce('{' || string_agg(to_json(key) || ':' || to_json(value), ',' ORDER BY key) || '}', '{}') "
            "FROM session_labels x WHERE x.session_id = s.id AND x.recorded_by = s.recorded_by)"
        )
        counted = (
            "(SELECT count(*) FROM {} r WHERE r.session_id = s.id AND r.recorded_by = s.recorded_by "
            "AND r.source IN ('otlp', 'hook'))"
        )
        rows = self._all(
            "SELECT s.id FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM session_log l "  # noqa: S608 - names of ours
            f"WHERE l.id = s.id AND l.recorded_by = s.recorded_by AND {alike} AND {labels} = l.labels) "
            f"AND NOT (s.revision = 0 AND s.tool_calls >= {counted.format('tool_call_log')} "
            f"AND s.requests >= {counted.format('cost_log')} "
            "AND NOT EXISTS (SELECT 1 FROM session_log l WHERE l.id = s.id AND l.recorded_by = s.recorded_by "
            "AND l.revision > 0) "
            f"AND {labels} = coalesce((SELECT l.labels FROM session_log l WHERE l.id = s.id "
            "AND l.recorded_by = s.recorded_by ORDER BY l.position DESC LIMIT 1), '{}')) LIMIT ?",
            limit,
        )
        return [id_ for (id_,) in rows]

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with translated():
            cursor = psycopg.RawCursor(self._connection.raw)
            # bytes in text are twice as long
            return cursor.execute(spelled(sql).encode(), values or None, binary=True).fetchall()

    def _each(self, sql: str, *values: Any) -> Iterable[Any]:
        with translated(), psycopg.RawServerCursor(self._connection.raw, "each") as cursor:
            cursor.execute(spelled(sql).encode(), values or None)
            yield from cursor
