"""The index of a log in a folder: a small database beside the tiles. See seal.log.Index."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from audit_svc.errors import DiskFull
from audit_svc.seal.errors import BadLog
from audit_svc.seal.log import OWN, Run

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


class FolderIndex:
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

    def forget_from(self, index: int) -> None:
        """Forgets leaves from an index on: a checkpoint never told of them."""
        self._connection.execute("DELETE FROM runs WHERE first_index >= ?", (index,))
        self._connection.execute("UPDATE runs SET rows = ?1 - first_index WHERE first_index + rows > ?1", (index,))
        # an entry has a run of its own
        self._connection.execute(
            "DELETE FROM entries WHERE position > (SELECT coalesce(max(first_position + rows - 1), 0) FROM runs "
            "WHERE kind = ?)",
            (OWN,),
        )

    def add(self, run: Run) -> None:
        """Adds a run, to the last one where it goes on with it."""
        last = self.last()
        if last and last[1:3] == run[1:3] and last.last_position + 1 == run.first_position:
            self._connection.execute(
                "UPDATE runs SET rows = rows + ? WHERE first_index = ?", (run.rows, last.first_index)
            )
        else:
            self._connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", run)

    def add_entry(self, leaf: str, index: int) -> None:
        """Adds a leaf of the seal itself."""
        self._connection.execute("INSERT INTO entries (leaf) VALUES (?)", (leaf,))
        self.add(Run(index, OWN, 1, self._connection.last_insert_rowid(), 1))

    def entries(self, size: int, limit: int | None = None) -> list[tuple[int, str]]:
        """The newest leaves of the seal itself among the first size leaves, the oldest first, with their indices."""
        found = self._read(
            "SELECT r.first_index + e.position - r.first_position, e.leaf FROM entries e JOIN runs r ON r.kind = ?1 "
            "AND e.position >= r.first_position AND e.position < r.first_position + r.rows "
            "WHERE r.first_index + e.position - r.first_position < ?2 ORDER BY e.position DESC LIMIT ?3",
            (OWN, size, -1 if limit is None else limit),
        )
        return [(int(index), str(leaf)) for index, leaf in found][::-1]

    def note_producers(self, highest: Mapping[tuple[str, str], int]) -> None:
        """Notes the highest number that came of producers, known by (id, recorded_by)."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO producers VALUES (?, ?, ?)",
            [(*producer, number) for producer, number in highest.items()],
        )

    def producers(self) -> dict[tuple[str, str], int]:
        """The highest number that came of each producer, by (id, recorded_by)."""
        found = self._read("SELECT id, recorded_by, highest_sequence FROM producers")
        return {(str(id_), str(name)): int(number) for id_, name, number in found}

    def last(self) -> Run | None:
        """The run of the last leaf."""
        return self._one("ORDER BY first_index DESC LIMIT 1")

    def size(self) -> int:
        """How many leaves it knows."""
        last = self.last()
        return last.first_index + last.rows if last else 0

    def runs(self) -> Iterator[Run]:
        """All, in the order of the log."""
        with self._translated():
            for row in self._connection.execute("SELECT * FROM runs ORDER BY first_index"):
                yield Run(*row)

    def last_of(self, kind: str) -> Run | None:
        """The run that was added last of a kind."""
        return self._one("WHERE kind = ? ORDER BY first_index DESC LIMIT 1", kind)

    def find(self, kind: str, position: int) -> int | None:
        """The index of a row's leaf, the last where it has several; None where it has none."""
        run = self._one(
            "WHERE kind = ?1 AND first_position <= ?2 AND first_position + rows > ?2 ORDER BY first_index DESC LIMIT 1",
            kind,
            position,
        )
        return run.first_index + position - run.first_position if run else None

    def entry(self, position: int) -> str:
        """A leaf of the seal itself; empty where there is none."""
        for (leaf,) in self._read("SELECT leaf FROM entries WHERE position = ?", (position,)):
            return str(leaf)
        return ""

    def _one(self, rest: str, *values: object) -> Run | None:
        found = self._read(f"SELECT * FROM runs {rest}", values)  # noqa: S608 - texts of ours
        return Run(*found[0]) if found else None

    def _read(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._translated():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.FullError:
            raise DiskFull("the disk is full") from None
        except apsw.Error as error:
            raise BadLog(f"{self._path} cannot be read ({error}): it was changed, or is missing") from None
