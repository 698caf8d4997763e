"""Checkpoints beside the commits: another thread copies into the database what commits have added to the WAL.

SQLite would do so at the end of the commit that fills the WAL, and the batches of that commit would wait until all of
its pages are copied and synced. Here the writer copies only what came meanwhile: the WAL begins anew when nothing of it
is left to copy, which can only be between two commits.

It does not while somebody reads what is in it. Readers who follow each other without a pause would make it longer for
ever, so that the writer waits for those who are there once it is too long: new ones need it no more.
"""

import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import apsw

from audit_svc.sqlite.open.connection import BUSY_MS
from audit_svc.sqlite.open.room import lengthen_in_chunks
from audit_svc.sqlite.open.wal_readers import wal_readers
from recording.upkeep import attempt

BEGIN_PAGES = 5000
"""Pages in the WAL with which a checkpoint begins: 40 MB."""
LONG_BYTES = 128 * 2**20
"""A WAL that is longer is too long; one that is longer than what is free beside it is so too."""

WAIT_MS = 100
"""So long the writer waits for those who read the WAL when it is too long."""
AGAIN_SECONDS = 2.0
"""After it has waited in vain."""
EMPTYING_MS = 5000
"""So long others, who hold the WAL, are waited for; nobody commits meanwhile."""


class Checkpoints:
    """A thread with a connection of its own, which copies while the writer commits."""

    def __init__(self, writing: apsw.Connection) -> None:
        """Replaces SQLite's automatic checkpoints on the writer's connection."""
        self._writing = writing
        self._database = Path(writing.filename)
        self._wal = self._database.with_name(f"{self._database.name}-wal")
        self._connection = apsw.Connection(writing.filename, flags=apsw.SQLITE_OPEN_READWRITE)
        lengthen_in_chunks(self._connection)
        self._connection.wal_autocheckpoint(0)
        # A connection that has read nothing does not know of the WAL, and finds nothing to copy.
        self._connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        self._wanted = threading.Semaphore(0)
        self._is_copying = False
        self._has_copied = False
        self._failure: apsw.Error | None = None
        self._emptied: list[apsw.Error | None] = []
        """How the writer's attempts to empty the WAL ended, until the other thread has told it."""
        self._is_closing = False
        self._is_failing = False
        self._look_again = 0.0
        self.held_since: float | None = None
        """A monotonic time: since when readers keep a WAL that is too long from being emptied. From any thread."""
        self._thread = threading.Thread(target=self._run, name="audit-checkpoints")
        self._thread.start()
        writing.set_wal_hook(self._committed)

    def close(self) -> None:
        """Waits for what is under way. The writer commits no more."""
        self._is_closing = True
        self._wanted.release()
        self._thread.join()
        self._connection.close()

    def empty(self) -> bool:
        """Copies all of the WAL and cuts it to nothing, on the writer's thread between two transactions.

        Whether it did: readers who stay are not waited for long, and not at each commit.
        """
        if self._is_copying or time.monotonic() < self._look_again:
            return False
        self._writing.set_busy_timeout(WAIT_MS)
        try:
            self._writing.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            self._look_again = time.monotonic() + AGAIN_SECONDS
            self._tell(error)
            return False
        finally:
            self._writing.set_busy_timeout(BUSY_MS)
        if self._is_failing:
            self._tell(None)
        return True

    def _committed(self, connection: apsw.Connection, database: str, pages: int) -> int:
        """On the writer's thread, after each commit."""
        if self._has_copied:
            self._has_copied = False
            # Told by the other thread: between a commit and its answers nothing is logged.
            if error := _checkpoint(connection):
                self._failure = error
                self._wanted.release()
        elif pages >= BEGIN_PAGES and not self._is_copying:
            self._is_copying = True
            self._wanted.release()
        if self._is_too_long():
            self.empty()
        elif self._is_failing:
            self._tell(None)
        return apsw.SQLITE_OK

    def _is_too_long(self) -> bool:
        try:
            wal_bytes = self._wal.stat().st_size
            return wal_bytes > min(LONG_BYTES, shutil.disk_usage(self._database.parent).free)
        except OSError:
            return False

    def _tell(self, error: apsw.Error | None) -> None:
        self._is_failing = error is not None
        is_held = isinstance(error, apsw.BusyError | apsw.LockedError)
        self.held_since = (self.held_since or time.monotonic()) if is_held else None
        self._emptied.append(error)
        self._wanted.release()

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            if self._is_closing:
                return
            while self._emptied:
                with attempt("emptying the WAL", event="store.wal_held", foreseen=(apsw.Error,)):
                    self._raise_if_held(self._emptied.pop(0))
            failure, self._failure = self._failure, None
            if not failure and not self._is_copying:
                continue
            with attempt("checkpoints", event="store.checkpoint_failed", foreseen=(apsw.Error,)):
                if self._is_copying:
                    failure = _checkpoint(self._connection) or failure
                    self._has_copied = failure is None
                    self._is_copying = False
                if failure:
                    raise failure

    def _raise_if_held(self, error: apsw.Error | None) -> None:
        if isinstance(error, apsw.BusyError):
            readers = ", ".join(map(str, sorted(wal_readers(self._database)))) or "unknown"
            raise apsw.BusyError(f"it is too long, and read by the processes {readers}: end those that read for long")
        if error:
            raise error


def empty_wal(path: Path) -> bool:
    """Copies all of the WAL into the database and cuts it to nothing; whether nobody kept it from that."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        lengthen_in_chunks(connection)
        connection.set_busy_timeout(EMPTYING_MS)
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.LockedError):
            return False
    return True


def _checkpoint(connection: apsw.Connection) -> apsw.Error | None:
    """Why it failed. The rows are safe in the WAL then, and the next commit asks again."""
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.Error as error:
        return error
    return None
