"""The audit logger over a spool and a sender, put together: what a gateway builds once and gives to its agent loop."""

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
    "The tool was not run: this gateway may only run tools whose calls can be put on record, and its record can take "
    "nothing now. Go on without tools, or try again later."
)

_MAX_ADOPTED = 4
_ADOPTION_SECONDS = 30.0


class SpoolLogger:
    """The AuditLogger that the agent loop gets."""

    def __init__(self, spool: Spool, mode: Mode) -> None:
        self._spool = spool
        self._strict = mode == "strict"

    def intend(self, row: audit_pb2.AuditRow) -> None:
        """Puts on the record that a tool is about to run.

        Raises:
            AuditRefused: the mode is `strict`, and the intent was not taken, or may not survive a power cut.
            SpoolClosed: the record was closed.
        """
        if self._spool.append_intent(row) and not (self._strict and self._spool.sync_failed):
            return
        if self._strict:
            raise AuditRefused(REFUSAL)
        self._spool.note_unrecorded(row.id)

    def record(self, row: Row) -> None:
        """Takes a row. One that cannot be taken is counted, warned about and told by a gap row.

        Raises:
            SpoolClosed: the record was closed.
        """
        self._spool.append(row)


class Record:
    """Everything between the agent loop and the audit service."""

    def __init__(self, folders: Folders, spool: Spool, sender: Sender, logger: SpoolLogger) -> None:
        self.logger = logger
        self.spool = spool
        self._folders = folders
        self._sender = sender
        self._adopting: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    @property
    def counters(self) -> Counters:
        """What has happened since the process started."""
        return self.spool.counters

    @property
    def sender_state(self) -> SenderState:
        """What the sender does now."""
        return self._sender.state

    @property
    def adopted(self) -> int:
        """How many spools of other processes are being sent."""
        return self._sender.adopted

    def start(self) -> None:
        """Begins to send, in the running event loop. Rows can be recorded before."""
        self._sender.start()
        self._adopting = asyncio.create_task(self._adopt(), name="audit-adoption")

    async def drain(self, grace_seconds: float) -> bool:
        """Waits until every row is in the ledger, but at most grace_seconds; says whether it is so."""
        await self._stop_adopting()
        return await self._sender.drain(grace_seconds)

    async def aclose(self) -> None:
        """Stops. What was not acked is sent after the next start; recording raises SpoolClosed from now on."""
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
        # Not by cancelling: what a thread has just adopted would be nobody's.
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
    """Opens the spool below state_dir, and recovers what earlier processes left there.

    From here on rows can be recorded; Record.start() begins to send them.

    Raises:
        OSError: state_dir cannot be used.
    """
    options = SpoolOptions(sync=sync, sync_interval_ms=sync_interval_ms, max_bytes=max_bytes)
    folders = Folders(state_dir / "spool", options)
    spool = folders.open_own()
    return Record(folders, spool, Sender(spool, target, ack_seconds=ack_seconds), SpoolLogger(spool, mode))
