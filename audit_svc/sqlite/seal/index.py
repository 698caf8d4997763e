"""The index of a log in a folder: a small database beside the tiles. See seal.log.Index."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from audit_svc.errors import DiskFull
from audit_svc.seal.errors import BadLog
from audit_svc.seal.sql_index import SqlIndex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    first_index    INTEGER PRIMARY KEY NOT NULL,
    kind           TEXT NOT NULL,
    version        INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    rows           INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS idx_runs_position ON runs (kind, first_position);
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY NOT NULL,
    leaf     TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS producers (
    id               TEXT NOT NULL,
    recorded_by      TEXT NOT NULL,
    highest_sequence INTEGER NOT NULL,
    PRIMARY KEY (id, recorded_by)
) STRICT, WITHOUT ROWID;
"""
INDEX = "index.db"
"""The file, in the seal's folder."""


class FolderIndex(SqlIndex):
    """The database of runs."""

    def __init__(self, folder: Path, *, writable: bool = False) -> None:
        self._path = path = folder / INDEX
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if writable else apsw.SQLITE_OPEN_READONLY
        try:
            self._connection = apsw.Connection(str(path), flags=flags)
        except apsw.Error as error:
            raise BadLog(f"{path} cannot be opened ({error}): it belongs to the seal, put it back") from None
        self._connection.set_busy_timeout(5000)
        if writable:
            self._connection.pragma("journal_mode", "wal")
            self._connection.pragma("synchronous", "full")
            self._connection.execute(_SCHEMA)

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the body, or nothing of it."""
        with self._translated(), self._connection:
            yield

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._translated():
            return self._connection.execute(sql, values).fetchall()

    def _write(self, sql: str, many: Iterable[Sequence[Any]]) -> None:
        with self._translated():
            self._connection.executemany(sql, many)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.FullError:
            raise DiskFull("the disk is full") from None
        except apsw.Error as error:
            raise BadLog(f"{self._path} cannot be read ({error}): it was changed, or is missing") from None
