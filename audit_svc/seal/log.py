"""Where a log is kept. A folder has it beside SQLite's file (sqlite/seal), tables in the ledger's PostgreSQL there."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

OWN = "entry"
"""The kind of leaves that are of the seal itself, and stand whole among the entries."""


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


class Files(Protocol):
    """Files by their paths, such as `checkpoint` or `tile/0/000` (https://c2sp.org/tlog-tiles)."""

    def read(self, path: str) -> bytes | None:
        """A whole file; None where there is none. Raises BadLog: it cannot be read."""
        ...

    def read_below(self, folder: str) -> dict[str, bytes]:
        """The files in a folder, by their names; those that cannot be read are left out."""
        ...

    def paths(self, folder: str) -> list[str]:
        """The paths of all files below a folder."""
        ...

    def write(self, files: Mapping[str, bytes]) -> None:
        """Puts files in the place of what is there. Each is whole, and lasts, when this returns."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file, or all that are below a folder. There may be none."""
        ...

    def place(self, path: str = "") -> str:
        """Where a file is, for people; of all by default."""
        ...


class Index(Protocol):
    """Which leaf is which row: runs of positions. One process writes it, others read it meanwhile.

    It is no part of the proof: what it says is checked against the signed tiles, leaf by leaf. It is written before the
    checkpoint, so that it may know of leaves behind it. Any call may raise BadLog: it cannot be read, or DiskFull.
    """

    def close(self) -> None:
        """Ends its use."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All of the body, or nothing of it."""
        ...

    def forget_from(self, index: int) -> None:
        """Forgets leaves from an index on: a checkpoint never told of them."""
        ...

    def add(self, run: Run) -> None:
        """Adds a run, to the last one where it goes on with it."""
        ...

    def add_entry(self, leaf: str, index: int) -> None:
        """Adds a leaf of the seal itself."""
        ...

    def entries(self, size: int, limit: int | None = None) -> list[tuple[int, str]]:
        """The newest leaves of the seal itself among the first size leaves, the oldest first, with their indices."""
        ...

    def entry(self, position: int) -> str:
        """A leaf of the seal itself; empty where there is none."""
        ...

    def note_producers(self, highest: Mapping[tuple[str, str], int]) -> None:
        """Notes the highest number that came of producers, known by (id, recorded_by)."""
        ...

    def producers(self) -> dict[tuple[str, str], int]:
        """The highest number that came of each producer, by (id, recorded_by)."""
        ...

    def size(self) -> int:
        """How many leaves it knows."""
        ...

    def runs(self) -> Iterator[Run]:
        """All, in the order of the log."""
        ...

    def last_of(self, kind: str, size: int) -> Run | None:
        """The run that was added last of a kind, as far as it is among the first size leaves."""
        ...

    def find(self, kind: str, position: int, size: int) -> int | None:
        """The index of a row's leaf among the first size, the last where it has several; None where it has none."""
        ...


class Log(Files, Protocol):
    """A log: its files, and its index."""

    def index(self, *, writable: bool = False) -> Index:
        """Raises BadLog: it cannot be opened."""
        ...

    def has_begun(self) -> bool:
        """Whether there are tiles, or an index: then a missing checkpoint is trouble."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other sealers away, where that can be had for as long as a process lives. Raises InUse."""
        ...

    def changing(self, checkpoint: bytes | None) -> AbstractContextManager[None]:
        """What the body writes goes on from this checkpoint; None where there is none yet.

        Two sealers never write from the same one, by locked() or by this: a log has one successor to each checkpoint.

        Raises InUse: another sealer has gone on from it. What the body wrote is undone then, or was never told of.
        """
        ...

    def close(self) -> None:
        """Ends its use."""
        ...
