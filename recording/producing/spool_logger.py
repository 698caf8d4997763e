"""The AuditLogger that writes to a spool."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from onrecord.audit.v1 import audit_pb2

from recording.logger import AuditRefused, Row
from recording.spool import Spool, SpoolClosed, Sync
from recording.witness.doubts import DOUBTED, Doubts

Mode = Literal["best_effort", "strict"]

REFUSAL = (
    "The tool was not run: this process only runs tools whose calls it can record, and it cannot record anything now. "
    "Continue without tools, or try again later."
)

_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows that a spool has taken."""

    spool: Spool
    number: int
    """Of the last one's record."""

    def is_stored(self) -> bool:
        """Whether the ledger has answered for them."""
        return self.spool.is_acked(self.number)


class SpoolLogger:
    """The AuditLogger that writes to a spool. synced() belongs to one event loop, the rest to any thread."""

    def __init__(self, spool: Spool, mode: Mode, sync: Sync) -> None:
        self.spool = spool
        """The current spool; replaced if its folder was taken away."""
        self.is_strict = mode == "strict"
        self.doubts: Doubts | None = None
        """Where a doubted ledger is told, by which mode `strict` refuses tools."""
        self.on_refusal: Callable[[], object] = lambda: None
        """Called when a row was not recorded, at most once a second, by the thread that recorded it."""
        self._next_call = 0.0
        self.waits_for_sync = sync == "always"
        """Whether synced() waits for the disk."""
        self._taken = 0
        self._synced = 0
        self._syncing: asyncio.Task[bool] | None = None

    def intend(self, row: audit_pb2.AuditRow) -> None:
        """Records that a tool is about to run.

        Raises:
            AuditRefused: the mode is `strict`, and the intent was not recorded or may not survive a power cut, or the
                ledger is doubted.
            SpoolClosed: the record is closed.
        """
        if self.is_strict and self.doubts is not None and self.doubts.is_doubted():
            raise AuditRefused(DOUBTED)
        self._taken += 1
        spool = self.spool
        try:
            taken = spool.append_intent(row)
        except SpoolClosed:
            if spool is self.spool:
                raise
            return self.intend(row)
        if taken and not (self.is_strict and spool.sync_failed):
            return None
        self.call_for_look()
        if self.is_strict:
            raise AuditRefused(REFUSAL)
        return self.spool.note_unrecorded(row.id)

    def record(self, row: Row) -> None:
        """Records a row. If the spool cannot take it, the row is counted, logged and reported by a gap row.

        Raises:
            SpoolClosed: the record is closed.
        """
        self._taken += 1
        spool = self.spool
        try:
            if not spool.append(row):
                self.call_for_look()
        except SpoolClosed:
            if spool is self.spool:
                raise
            self.record(row)

    def take(self, rows: Sequence[Row | audit_pb2.SessionNumbers]) -> "Taken | None":
        """Records rows that somebody else keeps until they are safe; None if not all could be: see Spool.append_all().

        Raises:
            SpoolClosed: the record is closed.
        """
        spool = self.spool
        try:
            number = spool.append_all(rows)
        except SpoolClosed:
            if spool is self.spool:
                raise
            return self.take(rows)
        self._taken += 1  # behind, since a sync may begin in between
        if number is None:
            self.call_for_look()
            return None
        return Taken(spool, number)

    def call_for_look(self) -> None:
        """Has somebody look at what is wrong."""
        now = time.monotonic()
        if now >= self._next_call:
            self._next_call = now + _LOOK_SECONDS
            self.on_refusal()

    async def synced(self) -> None:
        """Waits for the disk when it is to have each row at once. All that wait share a sync, and no other turn waits.

        Raises:
            AuditRefused: the mode is `strict`, and the disk failed.
        """
        taken = self._taken
        while self.waits_for_sync and self._synced < taken:
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._sync(), name="audit-sync")
            if not await asyncio.shield(self._syncing) and self.is_strict:
                raise AuditRefused(REFUSAL)

    async def _sync(self) -> bool:
        try:
            taken = self._taken
            succeeded = await asyncio.to_thread(self.spool.sync)
            self._synced = taken  # even if it failed, which is logged: the next waiter starts another sync
            return succeeded
        finally:
            self._syncing = None
