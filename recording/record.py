"""The audit logger on top of a spool and a sender. A gateway builds it once, for all its engines."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Literal

import structlog
from onrecord.audit.v1 import audit_pb2

from recording.delivery.connection import Target
from recording.delivery.sender import ACK_SECONDS, Sender, SenderState
from recording.logger import AuditRefused, Row
from recording.spool import Counters, Folders, Spool, SpoolOptions, Sync

log = structlog.get_logger(__name__)

Mode = Literal["best_effort", "strict"]

REFUSAL = (
    "The tool was not run: this gateway only runs tools whose calls it can record, and it cannot record anything now. "
    "Continue without tools, or try again later."
)

_MAX_ADOPTED = 4
_ADOPTION_SECONDS = 30.0


class SpoolLogger:
    """The AuditLogger that writes to a spool."""

    def __init__(self, spool: Spool, mode: Mode) -> None:
        self._spool = spool
        self._strict = mode == "strict"

    def intend(self, row: audit_pb2.AuditRow) -> None:
        """Records that a tool is about to run.

        Raises:
            AuditRefused: the mode is `strict`, and the intent was not recorded or may not survive a power cut.
            SpoolClosed: the record is closed.
        """
        if self._spool.append_intent(row) and not (self._strict and self._spool.sync_failed):
            return
        if self._strict:
            raise AuditRefused(REFUSAL)
        self._spool.note_unrecorded(row.id)

    def record(self, row: Row) -> None:
        """Records a row. If the spool cannot take it, the row is counted, logged and reported by a gap row.

        Raises:
            SpoolClosed: the record is closed.
        """
        self._spool.append(row)


class Record:
    """The spool, its sender, and the adoption of spools that other processes left behind."""

    def __init__(self, folders: Folders, spool: Spool, sender: Sender, logger: SpoolLogger) -> None:
        self.logger = logger
        self.spool = spool
        self._folders = folders
        self._sender = sender
        self._adopting: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    @property
    def counters(self) -> Counters:
        """Counts since the process started."""
        return self.spool.counters

    @property
    def sender_state(self) -> SenderState:
        """What the sender is doing."""
        return self._sender.state

    @property
    def adopted(self) -> int:
        """The number of other processes' spools that are being sent."""
        return self._sender.adopted

    def start(self) -> None:
        """Starts sending, in the running event loop. Rows can be recorded before that."""
        self._sender.start()
        self._adopting = asyncio.create_task(self._adopt(), name="audit-adoption")

    async def drain(self, grace_seconds: float) -> bool:
        """Waits up to grace_seconds for every row to reach the ledger; returns whether they all did."""
        await self._stop_adopting()
        return await self._sender.drain(grace_seconds)

    async def aclose(self) -> None:
        """Stops. Unacked rows are sent after the next start; recording now raises SpoolClosed."""
        await self._stop_adopting()
        await self._sender.aclose()
        await asyncio.to_thread(self.spool.close)

    async def _adopt(self) -> None:
        while not self._ending.is_set():
            try:
                for spool in await asyncio.to_thread(self._folders.adopt, _MAX_ADOPTED - self._sender.adopted):
                    self._sender.adopt(spool)
            except OSError as error:
                log.warning("spool.adoption_failed", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(_ADOPTION_SECONDS):
                    await self._ending.wait()

    async def _stop_adopting(self) -> None:
        # Not by cancellation: a spool that the thread has just adopted would have no owner.
        self._ending.set()
        if self._adopting is not None:
            await self._adopting


def open_record(
    state_dir: Path,
    target: Target,
    *,
    mode: Mode = "best_effort",
    sync: Sync = "interval",
    sync_interval_ms: int = 100,
    max_bytes: int = 2**30,
    ack_seconds: float = ACK_SECONDS,
) -> Record:
    """Opens the spool below state_dir and recovers what earlier processes left there.

    Rows can be recorded at once; Record.start() starts sending them.

    Raises:
        OSError: state_dir cannot be used.
    """
    options = SpoolOptions(sync=sync, sync_interval_ms=sync_interval_ms, max_bytes=max_bytes)
    folders = Folders(state_dir / "spool", options)
    spool = folders.open_own()
    return Record(folders, spool, Sender(spool, target, ack_seconds=ack_seconds), SpoolLogger(spool, mode))
