"""Maintenance of a running ledger: prunes and erasures through the writer, backups beside it."""

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from onrecord.audit.v1 import administration_pb2

from audit_svc.errors import AlreadyRunning, StoreClosed
from audit_svc.ledger.erasing import ErasingProgress, Erasure
from audit_svc.ledger.holds import Act
from audit_svc.ledger.pruning import Progress
from audit_svc.sqlite.care.backup import copy
from audit_svc.sqlite.care.erase import Erase, refuse_held
from audit_svc.sqlite.care.erase import count as count_erasable
from audit_svc.sqlite.care.holds import list_holds, perform
from audit_svc.sqlite.care.prune import Prune, count, reset_mark, unfinished
from audit_svc.sqlite.open.connection import Connection, open_for_reading, translated
from audit_svc.sqlite.write.checkpoints import empty_wal
from audit_svc.sqlite.write.writer import Writer

T = TypeVar("T")


class OnlineCare:
    """Prunes, erasures and backups of a running service, one of each at a time."""

    def __init__(self, path: Path, writer: Writer) -> None:
        """Removes what a process that died has left of a copy. The caller holds the lock of path."""
        self._path = path.resolve()
        self._writer = writer
        self._pruning = False
        self._erasing = False
        self._copying = False
        self._closing = threading.Event()
        for leftover in self._path.parent.glob(f".{self._path.name}.*.copy*"):
            leftover.unlink()

    def close(self) -> None:
        """Cancels a backup that is under way."""
        self._closing.set()

    async def prune(self, before_ms: int, by: str, *, confirm_clock: bool = False) -> AsyncGenerator[Progress, None]:
        """Removes what began before before_ms, a whole hour, and yields its progress after each batch.

        Raises:
            ClockJumped: the clock shows a time that must be confirmed.
            AlreadyRunning: another prune is running.
            StoreClosed, DiskFull, StoreUnavailable: what was removed so far is gone, and the next prune continues.
        """
        if self._pruning:
            raise AlreadyRunning("a prune is under way already: wait for its end")
        self._pruning = True
        try:
            work = Prune(before_ms, by, self._writer.clock, confirm_clock)
            done = False
            loop = asyncio.get_running_loop()
            while not done:
                began = loop.time()
                progress = await asyncio.wrap_future(self._writer.run(work.step))
                done = progress.done
                # At most half of the writer's time, so that ingest keeps the rest.
                pause = loop.time() - began
                yield progress
                await asyncio.sleep(0 if done else pause)
        finally:
            self._pruning = False

    async def reset_mark(self, before_ms: int, by: str) -> Progress:
        """Sets the mark back to before_ms, where it is later.

        Raises:
            AlreadyRunning: a prune is running.
            StoreClosed, DiskFull, StoreUnavailable: the mark is unchanged.
        """
        if self._pruning:
            raise AlreadyRunning("a prune is under way: wait for its end")
        return await asyncio.wrap_future(self._writer.run(lambda connection: reset_mark(connection, before_ms, by)))

    async def count_prunable(self, before_ms: int) -> Progress:
        """What a prune would remove now."""
        return await asyncio.to_thread(self._read, lambda connection: count(connection, before_ms))

    async def unfinished_prune(self) -> int | None:
        """The time of an unfinished prune, in milliseconds since 1970-01-01 UTC; None if there is none."""
        return await asyncio.to_thread(self._read, unfinished)

    async def erase(self, wanted: Erasure) -> AsyncGenerator[ErasingProgress, None]:
        """Erases texts, and yields its progress after each batch.

        Raises:
            NotFound, AmbiguousId: there is no such row or session, or several callers have one.
            Held: a legal hold holds one of the rows. Nothing is erased, unless it was placed meanwhile.
            ClockJumped: the clock, by which rows are old enough, shows a time that must be confirmed.
            AlreadyRunning: another erasure is running.
            StoreClosed, DiskFull, StoreUnavailable: what was erased so far is, and asking again continues.
        """
        if self._erasing:
            raise AlreadyRunning("an erasure is under way already: wait for its end")
        self._erasing = True
        try:
            await asyncio.to_thread(self._read, lambda connection: refuse_held(connection, wanted))
            work = Erase(wanted, self._writer.clock)
            loop = asyncio.get_running_loop()
            while True:
                began = loop.time()
                progress = await asyncio.wrap_future(self._writer.run(work.step))
                if progress.done:
                    break
                pause = loop.time() - began
                yield progress
                await asyncio.sleep(pause)
            left = work.has_written and not await asyncio.to_thread(empty_wal, self._path)
            yield replace(progress, left_in_wal=left)
        finally:
            self._erasing = False

    async def count_erasable(self, wanted: Erasure) -> ErasingProgress:
        """What erasing would erase now. Raises NotFound, AmbiguousId."""
        return await asyncio.to_thread(self._read, lambda connection: count_erasable(connection, wanted))

    async def act_on_hold(self, act: Act) -> administration_pb2.Hold:
        """Places or lifts a hold.

        Raises:
            AlreadyExists: a hold of that name is in place.
            NotFound: none is.
            InvalidRequest: as many are in place as may be.
            StoreClosed, DiskFull, StoreUnavailable: nothing is changed.
        """
        return await asyncio.wrap_future(self._writer.run(lambda connection: perform(connection, act)))

    async def list_holds(self, *, with_lifted: bool) -> list[administration_pb2.Hold]:
        """The holds in place, or all that ever were, in the order in which they were placed."""
        return await asyncio.to_thread(self._read, lambda connection: list_holds(connection, with_lifted=with_lifted))

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

    def _read(self, query: Callable[[Connection], T]) -> T:
        with translated(self._path), closing(open_for_reading(self._path)) as connection:
            return query(connection)
