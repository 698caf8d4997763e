"""The audit logger on top of a spool and a sender. A gateway builds it once, for all its engines."""

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

from recording.args_key import ArgsKey, open_args_key
from recording.delivery.connection import Target
from recording.delivery.dead_letters import DeadLetters
from recording.delivery.sender import ACK_SECONDS, Sender, SenderState
from recording.following.follower import IDLE_LOOK_SECONDS, LOOK_SECONDS, Follower
from recording.kept.folder import KEEP_BYTES
from recording.log import get_logger
from recording.logger import safe_audit
from recording.producing.spool_logger import Mode, SpoolLogger
from recording.spool import Counters, Folders, Spool, SpoolOptions, Sync
from recording.upkeep import attempt
from recording.witness.doubts import Doubts
from recording.witness.witness import SECONDS, Witness, WitnessOptions

log = get_logger(__name__)

SLOW_SYNC_SECONDS = 5.0
"""A longer sync is reported by health."""

_MAX_ADOPTED = 4
_LOOK_SECONDS = 1.0


class Record:
    """The spool, its sender, and the adoption of spools that other processes left behind."""

    def __init__(
        self, folders: Folders, sender: Sender, logger: SpoolLogger, args_key: ArgsKey, witness: Witness | None = None
    ) -> None:
        """witness: None where nobody watches the ledger."""
        self.logger = logger
        self._witness = witness
        self._doubts = Doubts(folders.root.parent)
        self.args_key = args_key
        """Makes the digests of arguments."""
        self.dead_letters = DeadLetters(folders.root)
        """The dead letters of all processes that share the state directory."""
        self._folders = folders
        self._sender = sender
        self._follower = Follower(folders.root, sender, logger.spool.counters)
        self._tending: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._adopts = True
        self._adopting = asyncio.Lock()
        self._ending = asyncio.Event()
        self._look = asyncio.Event()
        self._homeless = ""

    @property
    def spool(self) -> Spool:
        """The spool that rows go to now."""
        return self.logger.spool

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

    def trouble(self) -> str:
        """Why the mode's promise does not hold now, for people; empty if it holds. It tries the disk."""
        slow = self._slow_sync() if self.logger.waits_for_sync else ""
        refuses = self._doubted() if self.logger.is_strict and self.logger.doubts is not None else ""
        return self._homeless or slow or refuses or (self.spool.trouble() if self.logger.is_strict else "")

    def is_doubted(self) -> bool:
        """Whether the ledger is not what it was, and nobody has accepted that."""
        return self._doubts.is_doubted()

    @property
    def witnessed_leaves(self) -> int:
        """Of the newest checkpoint of the ledger's log that was seen; 0 where none was, or another process watches."""
        return self._witness.leaves if self._witness is not None else 0

    def _doubted(self) -> str:
        why = self._doubts.why()
        return f"the ledger is not what it was: {why}" if why else ""

    def detail(self) -> str:
        """What an operator should look at, though rows are taken; empty when there is nothing. It reads files."""
        refused = self.dead_letters.count()
        dropping = "" if self.logger.is_strict else self.spool.trouble()
        told = [
            f"rows are not recorded but counted: {dropping}" if dropping else "",
            self._slow_sync(),
            self._waiting(),
            self._doubted(),
            f"{refused} rows that the ledger refused wait for a decision (dead-letters list)" if refused else "",
            f"{self.counters.moved} times a spool's folder was taken away" if self.counters.moved else "",
        ]
        return "; ".join(filter(None, told))

    def ledger_trouble(self) -> str:
        """Why rows do not reach the ledger now, for people; empty while they do, and where none was sent yet."""
        refusal = self._sender.refusal()
        return refusal or ("the ledger does not answer" if self._sender.state == "failing" else "")

    def _waiting(self) -> str:
        """How much waits for the ledger, and why; empty while nothing waits, or rows reach it."""
        trouble, records = self.ledger_trouble(), self._sender.waiting_records()
        if not (trouble and records):
            return self._sender.refusal()
        return f"{records} {'record waits' if records == 1 else 'records wait'} in the spool: {trouble}"

    def _slow_sync(self) -> str:
        seconds = self.spool.sync_seconds()
        return f"the spool's disk has been syncing for {seconds:.0f} s" if seconds > SLOW_SYNC_SECONDS else ""

    def start(self) -> None:
        """Starts sending, in the running event loop. Rows can be recorded before that."""
        self._sender.start()
        if self._witness is not None:
            self._witness.start()
        self._tending = asyncio.create_task(self._tend(), name="audit-folders")
        self._following = asyncio.create_task(self._follow(), name="audit-followed")

    async def drain(self, grace_seconds: float) -> bool:
        """Waits up to grace_seconds for every row to reach the ledger; returns whether they all did."""
        async with self._adopting:  # it may be adopting a spool
            if self._tending is not None and self._adopts:
                with attempt("adoption of spools", event="spool.adoption_failed", foreseen=(OSError,)):
                    await self._adopt(surely=True)
            self._adopts = False
        return await self._sender.drain(grace_seconds)

    async def aclose(self) -> None:
        """Stops. Unacked rows are sent after the next start; recording now raises SpoolClosed."""
        # Not by cancellation: a spool that the thread has just adopted would have no owner.
        self._ending.set()
        self._look.set()
        if self._tending is not None:
            await self._tending
            await (
                self._leave_what_is_gone()
            )  # what was taken away since the last check must not be lost with the process
        if self._following is not None:
            await self._following
        if self._witness is not None:
            await self._witness.aclose()
        await self._sender.aclose()
        self._follower.end()
        await asyncio.to_thread(self.spool.close)

    async def _tend(self) -> None:
        """Adopts the folders of dead processes, and checks its own."""
        self._sender.on_removed = self._look.set  # there is room for another
        while not self._ending.is_set():
            self._look.clear()
            with attempt("adoption of spools", event="spool.adoption_failed", foreseen=(OSError,)):
                async with self._adopting:
                    if self._adopts:
                        await self._adopt()
            with attempt("care of spools", event="spool.tending_failed"):
                await self._leave_what_is_gone()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._look.wait()

    async def _adopt(self, *, surely: bool = False) -> None:
        limit = _MAX_ADOPTED - self._sender.adopted
        for spool in await asyncio.to_thread(self._folders.adopt, limit, surely=surely):
            self._sender.adopt(spool)

    async def _follow(self) -> None:
        """Sends the rows of applications that append to the same state directory."""
        while not self._ending.is_set():
            with attempt("following", event="spool.following_failed"):
                self._follower.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if self._follower.is_busy else IDLE_LOOK_SECONDS):
                    await self._ending.wait()

    async def _leave_what_is_gone(self) -> None:
        """Continues in another folder where one was removed, moved or replaced."""
        for spool in self._sender.spools:
            try:
                if await asyncio.to_thread(spool.is_there):
                    if spool is self.spool:
                        self._homeless = ""
                elif spool is self.spool:
                    fresh = await asyncio.to_thread(self._folders.make)
                    await asyncio.to_thread(spool.move_to, fresh, partial(setattr, self.logger, "spool", fresh))
                    self._sender.replace_own(fresh)
                    self._homeless = ""
                else:
                    await asyncio.to_thread(spool.move_to, self.spool)
            except OSError as error:
                if not self._homeless:
                    log.error(
                        "spool.folder_gone", reason=str(error), hint="no other can be created: rows are in danger"
                    )
                    self.logger.call_for_look()
                self._homeless = f"the spool's folder is gone, and no other can be created: {error.strerror}"


def open_record(
    state_dir: Path,
    target: Target,
    *,
    mode: Mode = "best_effort",
    sync: Sync = "interval",
    sync_interval_ms: int = 100,
    max_bytes: int = 2**30,
    keep_acked_bytes: int = KEEP_BYTES,
    ack_seconds: float = ACK_SECONDS,
    witness_seconds: float = SECONDS,
    log_key: str = "",
    refuse_doubted: bool = True,
    args_key_file: Path | None = None,
) -> Record:
    """Opens the spool below state_dir and recovers what earlier processes left there.

    Rows can be recorded at once; Record.start() starts sending them.

    witness_seconds, log_key: see WitnessOptions. refuse_doubted: whether mode `strict` refuses tools while the ledger
    is doubted. args_key_file: the keys of the digests of arguments that producers share; a key of its own without it.

    Raises:
        OSError: state_dir cannot be used.
        WrongFile: args_key_file cannot be used.
    """
    options = SpoolOptions(
        sync=sync, sync_interval_ms=sync_interval_ms, max_bytes=max_bytes, keep_acked_bytes=keep_acked_bytes
    )
    folders = Folders(state_dir / "spool", options)
    spool = folders.open_own()
    sender, logger = Sender(spool, target, ack_seconds=ack_seconds), SpoolLogger(spool, mode, sync)
    if refuse_doubted and witness_seconds:  # or nobody would find that it was accepted
        logger.doubts = Doubts(state_dir)
    watching = WitnessOptions(witness_seconds, log_key, ack_seconds, options.counters)
    witness = Witness(state_dir, target, partial(safe_audit, logger), watching)
    sender.on_connected = witness.look_soon
    return Record(folders, sender, logger, open_args_key(state_dir, args_key_file), witness)
