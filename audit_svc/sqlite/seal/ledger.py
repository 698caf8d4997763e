"""A ledger in SQLite as the seal reads it: see seal.ledger.SealedLedger."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit_svc.seal.leaf import Kind
from audit_svc.seal.ledger import Row
from audit_svc.seal.sql_ledger import SqlSealedLedger
from audit_svc.sqlite.open.connection import Connection, open_for_reading, translated
from audit_svc.sqlite.seal import leaves


class SqliteSealedLedger(SqlSealedLedger):
    """A connection that reads a file."""

    labels = (
        "(SELECT coalesce(json_group_object(key, value), '{}') FROM (SELECT key, value FROM session_labels x "
        "WHERE x.session_id = s.id AND x.recorded_by = s.recorded_by ORDER BY key))"
    )
    compared = "json({})"

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

    def _leaves(self, kind: Kind, where: str, *values: object) -> Iterator[Row]:
        return ((at, said.encode()) for at, said in self._all(leaves.select(kind, where), *values))

    def _all(self, sql: str, *values: object) -> list[Any]:
        with translated(self._path):
            return self._connection.execute(sql, values).fetchall()

    def _each(self, sql: str, *values: object) -> Iterable[Any]:
        return self._connection.execute(sql, values)
