"""The writer: group commits into the file, and checkpoints beside them."""

import errno
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import DiskFull, FileLost, StoreUnavailable
from audit_svc.ledger.batch import Batch
from audit_svc.ledger.group_commit import GroupCommit
from audit_svc.ledger.observer import StoreObserver
from audit_svc.ledger.usage import Usage
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.open.connection import transaction
from audit_svc.sqlite.text.indexer import Indexer
from audit_svc.sqlite.write.checkpoints import Checkpoints
from audit_svc.sqlite.write.inserts import Inserts

T = TypeVar("T")

ROOM_BYTES = 2 * 2**20
"""Of a disk that was full: with as much it has room again."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class Writer(GroupCommit[apsw.Connection]):
    """Owns the one connection that writes."""

    def __init__(
        self,
        connection: apsw.Connection,
        queue_rows: int,
        observer: StoreObserver | None = None,
        indexer: Indexer | None = None,
        why_lost: Callable[[], str] = str,
    ) -> None:
        """Prepares the statements and starts the thread. connection belongs to the writer from now on.

        why_lost: says why what is committed would not be found, empty while it would; asked after each commit.

        Raises:
            StoreRefused: a table or a column is missing.
        """
        self._connection = connection
        self._folder = Path(connection.filename).parent
        self._inserts = Inserts(connection)
        self.clock = LedgerClock(connection)
        """For jobs alone, and to be read from any thread."""
        self._checkpoints = Checkpoints(connection)
        self._why_lost = why_lost
        self.why_damaged: Callable[[], str] = str
        """Says what is wrong with the file, empty while nothing is known to be: nothing is written into it then."""
        super().__init__(queue_rows, observer, indexer)

    def wal_held_seconds(self) -> float:
        """For how long readers have kept a WAL that is too long from being emptied; 0 while none do."""
        since = self._checkpoints.held_since
        return time.monotonic() - since if since else 0.0

    def _write(self, batches: Sequence[tuple[Batch, Usage]], now_ms: int) -> list[audit_pb2.RecordResponse]:
        self._refuse_damaged()
        try:
            responses = self._insert(batches, now_ms)
        except apsw.Error as error:
            if not self._is_full(error) or not self._checkpoints.empty():
                raise
            responses = self._insert(batches, now_ms)  # it was the WAL that had filled the disk
        self._inserts.committed()
        self.suspect_rows = self._inserts.suspect_rows
        self._refuse_lost()
        return responses

    def _insert(self, batches: Sequence[tuple[Batch, Usage]], now_ms: int) -> list[audit_pb2.RecordResponse]:
        with transaction(self._connection):
            responses = self._inserts.write(batches, now_ms)
            self.clock.look()
        return responses

    def _do(self, work: Callable[[apsw.Connection], T]) -> T:
        self._refuse_damaged()
        try:
            with transaction(self._connection):
                answer = work(self._connection)
        except apsw.Error as error:
            if self._is_full(error):  # whoever asks again finds room, if it was the WAL that had filled the disk
                self._checkpoints.empty()
            raise
        self._inserts.read_mark()
        self._refuse_lost()
        return answer

    def _release(self) -> None:
        self._checkpoints.close()
        self._connection.close()

    def _detail(self, error: Exception) -> str:
        # SQLite's messages quote no values; others might.
        return str(error) if isinstance(error, apsw.Error) else ""

    def _refuse_damaged(self) -> None:
        if damage := self.why_damaged():
            raise StoreUnavailable(damage)

    def _refuse_lost(self) -> None:
        if reason := self._why_lost():
            raise FileLost(reason)

    def _is_full(self, error: Exception) -> bool:
        return isinstance(error, apsw.FullError) or (
            isinstance(error, apsw.IOError) and self._connection.system_errno in _NO_ROOM
        )

    def _has_room(self) -> bool:
        try:
            return shutil.disk_usage(self._folder).free >= ROOM_BYTES
        except OSError:
            return False

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, apsw.ConnectionClosedError):
            return StoreUnavailable("the database was closed")
        if self._is_full(error):
            return DiskFull("the disk of the ledger's database is full")
        if isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError):
            return StoreUnavailable("the ledger's database cannot be written now; its log says why")
        return error
