"""Databases that no process has open: read without a change to them or to their folder, on media that nobody may write.

An ordinary read-only connection makes -wal and -shm files beside a database in WAL mode and leaves them there, and
fails where it cannot make them. So it is used for a database that is in use alone:

| found                      | opened with                                     | source                               |
|----------------------------|-------------------------------------------------|--------------------------------------|
| in use by another process  | locks, the WAL, shared memory                   | https://sqlite.org/wal.html          |
| at rest, without a -wal    | immutable=1: no locks, and no file but itself   | https://sqlite.org/uri.html          |
| at rest, with a -wal       | no locks, the WAL's index in the heap, and no   | https://sqlite.org/wal.html#noshm    |
|                            | checkpoint                                      |                                      |

Nothing of the last two keeps a service from starting meanwhile: what the files were is compared afterwards.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import apsw

from audit_svc.errors import NoFile, StoreRefused
from audit_svc.sqlite.open.connection import Connection, open_for_reading, translated
from audit_svc.sqlite.open.lock import HEADER
from audit_svc.sqlite.open.served import marker_of

State = Literal["in use", "whole", "with a WAL"]

_WAL_MODE = b"\x02\x02"
"""The file format's versions for writing and reading: bytes 18 and 19 (https://sqlite.org/fileformat.html)."""
_LOCKS = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 2**30, 512, 0)
"""A struct flock on the lock-byte page, on which each connection to a database in WAL mode keeps a lock."""


class _Identity(NamedTuple):
    """What a file was; all 0 where there is none."""

    device: int = 0
    inode: int = 0
    size: int = 0
    modified_ns: int = 0


class FoundDatabase:
    """A database file as it was found, and the connections that leave it so."""

    def __init__(self, path: Path) -> None:
        """Looks at the file. No connection of this process may have it open: its locks would be lost.

        Raises:
            StoreRefused: it is missing, cannot be read, is no SQLite database, or a change of it was cut short.
        """
        self.path = path
        self.resolved = path.resolve()  # as SQLite does, for the files beside it
        self._files = (self.resolved, self.beside("-wal"))
        self._before = self._identities()
        if path.exists() and not path.is_file():
            raise StoreRefused(f"{path} cannot be read: it is not a file")
        header, in_use = _look(path)
        if header[: len(HEADER)] != HEADER:
            raise StoreRefused(f"{path} is not an SQLite database")
        self.state: State = "in use" if in_use else "with a WAL" if self._before[1].size else "whole"
        """Whether another process has it open, and else what belongs to it."""
        if not in_use and _identity(self.beside("-journal")).size:
            raise StoreRefused(
                f"{path} has a -journal beside it, of a change that was cut short: "
                "`audit-svc migrate up` on a copy of both takes that change back"
            )
        self.unseen = ""
        """What may be missing in what is read, as a sentence; empty when nothing is."""
        if self.state == "whole" and header[18:20] == _WAL_MODE and not marker_of(path).exists():
            copied = "if it was copied while a service had it open, its newest rows are missing"
            self.unseen = f"{path} has no -wal beside it: {copied}"

    def beside(self, suffix: str) -> Path:
        """The path of a file that belongs to the database."""
        return self.resolved.with_name(self.resolved.name + suffix)

    def connect(self) -> Connection:
        """A connection that cannot write, and leaves no file behind.

        Raises:
            StoreRefused: the file cannot be read.
        """
        if self.state == "in use":
            return open_for_reading(self.path)
        uri = f"{self.resolved.as_uri()}?mode=ro"
        if self.state == "whole":
            return open_for_reading(self.path, uri + "&immutable=1")
        return open_for_reading(self.path, uri, private_wal=True)

    def copy(self, target: Path) -> None:
        """Copies what a connection reads into target, which must not be there, as one file.

        Raises:
            StoreRefused, DiskFull: the file cannot be read, or target not written.
        """
        with (
            translated(target),
            closing(self.connect()) as source,
            closing(apsw.Connection(str(target))) as written,
            written.backup("main", source, "main") as steps,
        ):
            steps.step()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Refuses what its body has read of files that were at rest and changed meanwhile, or why it failed then.

        Raises:
            StoreRefused: they have.
        """
        try:
            yield
        except Exception:
            self.refuse_changed()
            raise
        self.refuse_changed()

    def refuse_changed(self) -> None:
        """Raises StoreRefused where files that were at rest have changed since they were found."""
        if self.state != "in use" and self._identities() != self._before:
            raise StoreRefused(f"{self.path} was changed while it was read, so what was read may be wrong: ask again")

    def _identities(self) -> tuple[_Identity, ...]:
        return tuple(map(_identity, self._files))


def _look(path: Path) -> tuple[bytes, bool]:
    """The file's header, and whether a process has it open."""
    try:
        with path.open("rb") as file:
            # It asks for a lock and takes none, which would keep a service from starting. Locks of this process count.
            (kind, *_) = struct.unpack("@hhqqi0q", fcntl.fcntl(file, fcntl.F_OFD_GETLK, _LOCKS))
            return file.read(100), kind != fcntl.F_UNLCK
    except FileNotFoundError:
        raise NoFile(path) from None
    except OSError as error:
        raise StoreRefused(f"{path} cannot be read ({error.strerror})") from None


def _identity(path: Path) -> _Identity:
    try:
        found = path.stat()
    except FileNotFoundError:
        return _Identity()
    except OSError as error:
        raise StoreRefused(f"{path} cannot be read ({error.strerror})") from None
    return _Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
