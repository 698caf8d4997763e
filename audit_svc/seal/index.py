"""Which leaf is which row: runs of positions, in a small database beside the tiles.

It is no part of the proof: what it says is checked against the signed tiles, leaf by leaf.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from audit_svc.seal.errors import BadLog

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
OWN = "entry"
"""The kind of leaves that are of the seal itself, and stand whole in the table entries."""


class Run(NamedTuple):
    """Leaves side by side of rows side by side."""

    first_index: int
    kind: str
    version: int
    first_position: int
    rows: int

    @property
    def last_position(self) -> int:
        """Of its rows."""
        return self.first_position + self.rows - 1


class Index:
    """The database of runs. One process writes it, others read it meanwhile."""

    def __init__(self, folder: Path, *, writable: bool = False) -> None:
        path = folder / INDEX
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
        with self._connection:
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

    def entries(self, size: int, limit: int = -1) -> list[tuple[int, str]]:
        """The newest leaves of the seal itself among the first size leaves, the oldest first, with their indices."""
        found = self._connection.execute(
            "SELECT r.first_index + e.position - r.first_position, e.leaf FROM entries e JOIN runs r ON r.kind = ?1 "
            "AND e.position >= r.first_position AND e.position < r.first_position + r.rows "
            "WHERE r.first_index + e.position - r.first_position < ?2 ORDER BY e.position DESC LIMIT ?3",
            (OWN, size, limit),
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
        found = self._connection.execute("SELECT id, recorded_by, highest_sequence FROM producers")
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
        for (leaf,) in self._connection.execute("SELECT leaf FROM entries WHERE position = ?", (position,)):
            return str(leaf)
        return ""

    def _one(self, rest: str, *values: object) -> Run | None:
        found = self._connection.execute(f"SELECT * FROM runs {rest}", values).fetchone()  # noqa: S608 - texts of ours
        return Run(*found) if found else None
