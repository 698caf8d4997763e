"""Care of a running ledger in a file: what sql.care.online does, and backups beside it."""

import asyncio
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, TypeVar

from audit_svc.errors import AlreadyRunning, StoreClosed
from audit_svc.ledger.erasing import Erasure
from audit_svc.ledger.pruning import Progress
from audit_svc.sql.care import online
from audit_svc.sqlite.care.backup import copy
from audit_svc.sqlite.care.erase import Erase
from audit_svc.sqlite.care.prune import Prune, count
from audit_svc.sqlite.open.connection import Connection, open_for_reading, translated
from audit_svc.sqlite.write.checkpoints import empty_wal
from audit_svc.sqlite.write.writer import Writer

T = TypeVar("T")


class OnlineCare(online.OnlineCare[Connection]):
    """Prunes, erasures and backups of a running service, one of each at a time."""

    def __init__(self, path: Path, writer: Writer) -> None:
        """Removes what a process that died has left of a copy. The caller holds the lock of path."""
        super().__init__(writer)
        self._path = path.resolve()
        self._clock = writer.clock
        self._copying = False
        self._closing = threading.Event()
        for leftover in self._path.parent.glob(f".{self._path.name}.*.copy*"):
            leftover.unlink()

    def close(self) -> None:
        """Cancels a backup that is under way."""
        self._closing.set()

    async def back_up(self) -> tuple[BinaryIO, int]:
        """A checked copy of the database as it is now, open at its start, and how many rows producers sent of it.

        The file has no name, and is deleted when it is closed.

        Raises:
            AlreadyRunning: another copy is being made.
            StoreRefused, DiskFull, StoreClosed: it cannot be made.
        """
        if self._copying:
            raise AlreadyRunning("a backup is under way already: wait for its end")
        self._copying = True
        given_up = threading.Event()
        try:
            return await asyncio.to_thread(self._copy, given_up)
        except asyncio.CancelledError:
            given_up.set()
            raise
        finally:
            self._copying = False

    def _copy(self, given_up: threading.Event) -> tuple[BinaryIO, int]:
        def on_progress(copied: int, pages: int) -> None:
            if given_up.is_set() or self._closing.is_set():
                raise StoreClosed("the backup was given up")

        partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.copy")
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            with translated(self._path), closing(open_for_reading(self._path)) as ledger:
                rows = copy(self._path, ledger, partial, on_progress)
            return partial.open("rb"), sum(rows[table] for table in ("tool_call_log", "cost_log", "sessions"))
        finally:
            for leftover in partial.parent.glob(f"{partial.name}*"):
                leftover.unlink()

    def _new_prune(self, before_ms: int, by: str, *, confirm_clock: bool) -> Prune:
        return Prune(before_ms, by, self._clock, confirm_clock)

    def _new_erasure(self, wanted: Erasure) -> Erase:
        return Erase(wanted, self._clock)

    def _count_prunable(self, connection: Connection, before_ms: int) -> Progress:
        return count(connection, before_ms)

    def _is_left_in_log(self) -> bool:
        return not empty_wal(self._path)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with translated(self._path), closing(open_for_reading(self._path)) as connection:
            return query(connection)
