"""Checkpoints beside the commits: another thread copies into the database what commits have added to the WAL.

SQLite would do so at the end of the commit that fills the WAL, and the batches of that commit would wait until all of
its pages are copied and synced. Here the writer copies only what came meanwhile: the WAL begins anew when nothing of it
is left to copy, which can only be between two commits.
"""

import threading
from contextlib import closing
from pathlib import Path

import apsw

from recording.upkeep import attempt

BEGIN_PAGES = 5000
"""Pages in the WAL with which a checkpoint begins: 40 MB."""

EMPTYING_MS = 5000
"""So long others, who hold the WAL, are waited for; nobody commits meanwhile."""


class Checkpoints:
    """A thread with a connection of its own, which copies while the writer commits."""

    def __init__(self, writing: apsw.Connection) -> None:
        """Replaces SQLite's automatic checkpoints on the writer's connection."""
        self._connection = apsw.Connection(writing.filename, flags=apsw.SQLITE_OPEN_READWRITE)
        self._connection.wal_autocheckpoint(0)
        # A connection that has read nothing does not know of the WAL, and finds nothing to copy.
        self._connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        self._wanted = threading.Semaphore(0)
        self._is_copying = False
        self._has_copied = False
        self._failure: apsw.Error | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="audit-checkpoints")
        self._thread.start()
        writing.set_wal_hook(self._committed)

    def close(self) -> None:
        """Waits for what is under way. The writer commits no more."""
        self._is_closing = True
        self._wanted.release()
        self._thread.join()
        self._connection.close()

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
        return apsw.SQLITE_OK

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            if self._is_closing:
                return
            with attempt("checkpoints", event="store.checkpoint_failed", foreseen=(apsw.Error,)):
                failure, self._failure = self._failure, None
                if self._is_copying:
                    failure = _checkpoint(self._connection) or failure
                    self._has_copied = failure is None
                    self._is_copying = False
                if failure:
                    raise failure


def empty_wal(path: Path) -> bool:
    """Copies all of the WAL into the database and cuts it to nothing; whether nobody kept it from that."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
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
