"""A ledger in SQLite as the seal reads it: see seal.ledger.SealedLedger."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit_svc.seal import leaf
from audit_svc.seal.leaf import Kind
from audit_svc.seal.ledger import Row
from audit_svc.seal.sql_ledger import SqlSealedLedger
from audit_svc.sqlite.open.connection import Connection, open_for_reading, translated
from audit_svc.sqlite.seal import leaves


class SqliteSealedLedger(SqlSealedLedger):
    """A connection that reads a file."""

    def __init__(self, connection: Connection, path: Path) -> None:
        """path: of the file, for errors."""
        leaves.prepare(connection)
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> "SqliteSealedLedger":
        """Raises StoreRefused: the file is not there, or cannot be read."""
        return cls(open_for_reading(path), path)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    @contextmanager
    def moment(self) -> Iterator[None]:
        """What the body reads is of one moment of all tables."""
        with translated(self._path), self._connection:
            yield

    def leaves_after(
        self, kind: Kind, after: int, until: int | None = None, limit: int | None = None
    ) -> Generator[Row]:
        """Rows behind a position, up to and with another."""
        position = kind.column("position")
        where = f"{position} > ?1" if until is None else f"{position} > ?1 AND {position} <= ?3"
        values = (after, -1 if limit is None else limit, *(() if until is None else (until,)))
        cursor: Any = self._connection.cursor()
        try:
            with translated(self._path):
                yield from cursor.execute(f"{leaves.select_bytes(kind, where)} LIMIT ?2", values)
        finally:
            cursor.close(True)  # the statement may be under way, and its moment with it

    def leaf_at(self, kind: Kind, position: int) -> bytes | None:
        """A row's leaf as the ledger has it now."""
        found = self._all(leaves.select(kind, f"{kind.column('position')} = ?"), position)
        return found[0][1].encode() if found else None

    def leaves_of(self, kind: Kind, id_: str, recorded_by: str | None) -> list[tuple[int, bytes]]:
        """The positions and leaves of the rows of an id."""
        who, values = ("", (id_,)) if recorded_by is None else (" AND recorded_by = ?2", (id_, recorded_by))
        return [(at, said.encode()) for at, said in self._all(leaves.select(kind, f"id = ?1{who}"), *values)]

    def changed_sessions(self, limit: int) -> list[str]:
        """The ids of sessions that are not what their last sealed revision says."""
        session = leaf.BY_NAME["session"]
        names = [name for name in session.columns if name not in {"position", "labels"}]
        alike = " AND ".join(f"s.{name} IS l.{name}" for name in names)
        labels = (
            "(SELECT coalesce(json_group_object(key, value), '{}') FROM (SELECT key, value FROM session_labels x "
            "WHERE x.session_id = s.id AND x.recorded_by = s.recorded_by ORDER BY key))"
        )
        counted = (
            "(SELECT count(*) FROM {} r WHERE r.session_id = s.id AND r.recorded_by = s.recorded_by "
            "AND r.source IN ('otlp', 'hook'))"
        )
        rows = self._all(
            "SELECT s.id FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM session_log l "  # noqa: S608 - names of ours
            f"WHERE l.id = s.id AND l.recorded_by = s.recorded_by AND {alike} AND json({labels}) = json(l.labels)) "
            f"AND NOT (s.revision = 0 AND s.tool_calls >= {counted.format('tool_call_log')} "
            f"AND s.requests >= {counted.format('cost_log')} "
            "AND NOT EXISTS (SELECT 1 FROM session_log l WHERE l.id = s.id AND l.recorded_by = s.recorded_by "
            "AND l.revision > 0) "
            f"AND json({labels}) = json(coalesce((SELECT l.labels FROM session_log l WHERE l.id = s.id "
            "AND l.recorded_by = s.recorded_by ORDER BY l.position DESC LIMIT 1), '{}'))) LIMIT ?",
            limit,
        )
        return [id_ for (id_,) in rows]

    def _all(self, sql: str, *values: object) -> list[Any]:
        with translated(self._path):
            return self._connection.execute(sql, values).fetchall()

    def _each(self, sql: str, *values: object) -> Iterable[Any]:
        return self._connection.execute(sql, values)
