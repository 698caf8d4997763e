"""The sender: delivers the rows of the spools to the audit service, however long that takes.

It is one task of the event loop, and sends what has gathered: a batch that is not full waits while another is in
flight, and for a moment after it, so that batches grow with the load; a row that comes alone is sent at once. An ack
trims the spool. Whatever fails, the rows stay there and are resent from the last ack on: the ledger counts those that
it has as duplicates.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import grpc
from onrecord.audit.v1 import audit_pb2

from recording.delivery.connection import (
    Connection,
    ProtocolBroken,
    RecordCall,
    Target,
    describe,
    encode_request,
    ledger_row_version,
    range_of,
    refuses_batch,
)
from recording.delivery.dead_letters import DeadLetters
from recording.delivery.failures import Failures
from recording.delivery.held_back import HeldBack
from recording.delivery.verdicts import Verdict, isolate
from recording.following.followed import FollowedSpool
from recording.log import get_logger
from recording.spool import Batch, Counters, Spool
from recording.upkeep import attempt

log = get_logger(__name__)

_FAILED_SECONDS = 1.0
"""After a defect, nothing is sent for as long."""

MAX_ROWS = 500
MAX_BYTES = 2**20
MAX_IN_FLIGHT = 16
"""Batches, as many as the ledger reads ahead of a stream: with four, it has none to read while it commits them all."""
ACK_SECONDS = 30.0
GATHER_SECONDS = 0.005
"""How long rows gather after an answer for others of their spool: a batch costs both sides as much as many rows."""

_DRAINING_BACKOFF_SECONDS = 0.2

SenderState = Literal["idle", "sending", "failing"]


@dataclass(frozen=True, slots=True)
class _Sent:
    spool: Spool | FollowedSpool
    batch: Batch
    covered: audit_pb2.SequenceRange


class Sender:
    """Sends the process's own spool, adopted ones, and those that other processes write to.

    All methods belong to the event loop's thread.
    """

    def __init__(
        self,
        spool: Spool | None,
        target: Target,
        *,
        counters: Counters | None = None,
        ack_seconds: float = ACK_SECONDS,
    ) -> None:
        """spool: the process's own, if it has one. ack_seconds: how long an ack may take before the connection is dead.

        counters: of a process without a spool of its own.
        """
        self._own = spool
        self._turns: deque[Spool | FollowedSpool] = deque([spool] if spool is not None else [])
        """All spools, in round-robin order."""
        self._removal: asyncio.Task[None] | None = None
        self._target = target
        self._ack_seconds = ack_seconds
        self._counters = counters or (spool.counters if spool is not None else Counters())
        self._in_flight: deque[_Sent] = deque()
        self._deadline = asyncio.timeout(None)
        self._answered_at = 0.0
        """By the loop's clock."""
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._draining = asyncio.Event()
        self._held_back = HeldBack(target.address)
        self._failures = Failures(target.address)
        self._task: asyncio.Task[None] | None = None
        self.on_connected: Callable[[], object] = lambda: None
        """Called when the first batch of a connection is answered."""
        self.on_removed: Callable[[], object] = lambda: None
        """Called when an adopted spool was sent and removed."""

    def start(self) -> None:
        """Starts sending, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._task = self._loop.create_task(self._run(), name="audit-sender")

    def adopt(self, spool: Spool) -> None:
        """Sends this spool too, and removes it when it is empty."""
        self._turns.append(spool)
        self._wake.set()

    def replace_own(self, spool: Spool) -> None:
        """Replaces its own spool by `spool`, to which it was moved, and removes the old one."""
        self._own = spool
        self.adopt(spool)
        self._progress.set()

    def follow(self, spool: FollowedSpool) -> None:
        """Sends this spool too, until leave()."""
        self._turns.append(spool)
        self._wake.set()

    def leave(self, spool: FollowedSpool) -> None:
        """Sends it no more."""
        with suppress(ValueError):
            self._turns.remove(spool)

    def is_sending(self, spool: FollowedSpool) -> bool:
        """Whether rows of it are on their way."""
        return any(sent.spool is spool for sent in self._in_flight)

    @property
    def spools(self) -> tuple[Spool, ...]:
        """Its own spool and the adopted ones."""
        return tuple(spool for spool in self._turns if isinstance(spool, Spool))

    @property
    def adopted(self) -> int:
        """How many adopted spools are not empty yet."""
        return len(self.spools) - (self._own is not None)

    @property
    def state(self) -> SenderState:
        """The current state. It is `failing` from a failure to the next ack, and while rows wait for a newer ledger."""
        return "failing" if self._failures.count or self._held_back else "sending" if self._in_flight else "idle"

    def refusal(self) -> str:
        """Why the ledger takes no rows, and what an operator has to do; empty if there is nothing to do."""
        refused = self._failures.refusal
        return self._held_back.refusal() or (f"the ledger takes no rows: {refused}" if refused else "")

    def waiting_records(self) -> int:
        """The records of all spools that are not acked, intents included. Thread-safe."""
        return sum(spool.depth for spool in self._turns.copy())

    async def drain(self, grace_seconds: float) -> bool:
        """Waits up to grace_seconds until every row is acked; returns whether all are."""
        self._draining.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while self._busy():
                    self._progress.clear()
                    await self._progress.wait()
        return not self._busy()

    async def aclose(self) -> None:
        """Stops. Unacked rows stay in the spools; adopted spools are released."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._removal is not None:
            await self._removal
        for spool in self.spools:
            if spool is not self._own:
                await asyncio.to_thread(spool.close)
                self._turns.remove(spool)

    def _busy(self) -> bool:
        removing = self._removal is not None and not self._removal.done()
        waiting = self._own is not None and (self._own.moved or not self._own.is_read_out())
        followed = any(spool.has_unread() for spool in self._turns if isinstance(spool, FollowedSpool))
        return bool(self._in_flight or self.adopted or removing or waiting or followed)

    async def _run(self) -> None:
        while True:
            with attempt("sending") as tried:
                await self._send()
            if tried.failed:
                await asyncio.sleep(_FAILED_SECONDS)

    async def _send(self) -> None:
        """Waits for rows, runs one connection, and makes up for what failed."""
        failure: Exception | None = None
        try:
            while self._choose() is None:
                await self._wait()
            await self._converse()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the rows are kept and tried again
            failure = error
        self._counters.reconnects += 1
        freed = False
        try:
            if failure is not None:
                freed = self._hold_back(failure) or (refuses_batch(failure) and await self._isolate())
        finally:
            self._in_flight.clear()
            for spool in self._turns:
                spool.rewind()
            self._progress.set()
        if not freed:
            await self._back_off(failure)

    async def _converse(self) -> None:
        """Runs one connection, from its first batch to its end.

        Raises:
            grpc.aio.AioRpcError: the service ended it with a status.
            TimeoutError: an ack did not come in time.
            ProtocolBroken: the acks violate the protocol.
            OSError: a disk failed.
        """
        link = Connection(self._target)
        try:
            async with asyncio.timeout(None) as self._deadline:
                call = link.record()
                acks = asyncio.create_task(self._take_acks(call))
                batches = asyncio.create_task(self._send_batches(call))
                try:
                    await asyncio.wait({acks, batches}, return_when=asyncio.FIRST_COMPLETED)
                    if batches.done():
                        batches.result()
                    await acks
                finally:
                    batches.cancel()
                    acks.cancel()
                    await asyncio.gather(batches, acks, return_exceptions=True)
        finally:
            await link.aclose()

    async def _send_batches(self, call: RecordCall) -> None:
        # A write to an ended call does not say why; _take_acks reads the service's status.
        last = None
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            while True:
                spool = self._choose()
                if spool is None:
                    await self._wait()
                    continue
                gather = self._answered_at + GATHER_SECONDS - self._loop.time()
                if spool is last and gather > 0 and spool.unread_records() < MAX_ROWS:
                    await asyncio.sleep(gather)
                    continue
                batch = spool.read(MAX_ROWS, MAX_BYTES)
                if batch is None or not batch.payloads:
                    self._progress.set()  # this may have been the last batch, and no ack will come for it
                    await asyncio.sleep(0)
                    continue
                covered = range_of(self._target.producer_id(spool.id), batch)
                self._in_flight.append(_Sent(spool, batch, covered))
                if len(self._in_flight) == 1:
                    self._expect_ack()
                last = spool
                await call.write(encode_request(covered, batch))

    async def _take_acks(self, call: RecordCall) -> None:
        connected = False
        while isinstance(response := await call.read(), audit_pb2.RecordResponse):
            if not self._in_flight or response.range != self._in_flight[0].covered:
                raise ProtocolBroken("the audit service acked what was not sent, or not in order")
            sent = self._in_flight[0]
            verdict = Verdict()
            verdict.add(sent.batch, response)
            await self._settle(sent, verdict)
            self._in_flight.popleft()
            self._answered_at = self._loop.time()
            self._expect_ack()
            if not connected:
                connected = True
                self.on_connected()
            self._wake.set()
            self._progress.set()

    def _expect_ack(self) -> None:
        self._deadline.reschedule(self._loop.time() + self._ack_seconds if self._in_flight else None)

    async def _isolate(self) -> bool:
        """Finds the rows at fault in the oldest batch, which was refused. False if that is not possible."""
        if not self._in_flight:
            return False
        sent = self._in_flight[0]
        link = Connection(self._target)
        try:
            verdict = await isolate(sent.batch, sent.covered.producer_id, link, self._ack_seconds)
            # If nothing passes, the service may be refusing everything: all is kept until something passes.
            if len(verdict.refused) < len(sent.batch.payloads):
                await self._settle(sent, verdict)
                return True
        except (grpc.aio.AioRpcError, ProtocolBroken, OSError) as error:
            log.warning("audit.isolation_failed", reason=describe(error))
        finally:
            await link.aclose()
        return False

    async def _settle(self, sent: _Sent, verdict: Verdict) -> None:
        """Applies an answer: dead letters reach their file before the batch leaves the spool."""
        letters = verdict.rejected + verdict.refused
        if letters:
            await asyncio.to_thread(DeadLetters(sent.spool.root).write, sent.spool.id, letters)
            self._counters.rejected += len(letters)
            log.error("audit.rows_rejected", count=len(letters), code=letters[0].code, reason=letters[0].message)
        sent.spool.ack(sent.batch)
        self._held_back.release(sent.spool.id)
        self._counters.acked += len(sent.batch.payloads)
        self._counters.stored += verdict.stored
        self._counters.duplicates += verdict.duplicates
        self._failures.end()

    def _hold_back(self, failure: Exception) -> bool:
        """Lets a spool wait whose oldest batch is of a newer version than the ledger knows; False if it is not that."""
        known = ledger_row_version(failure)
        if known is None or not self._in_flight:
            return False
        sent = self._in_flight[0]
        self._held_back.hold(sent.spool.id, sent.batch, known, sent.spool.unread_records())
        return True

    async def _back_off(self, failure: Exception | None) -> None:
        seconds = self._failures.note(failure, sum(spool.spooled_bytes for spool in self.spools))
        if self._draining.is_set():
            await asyncio.sleep(min(seconds, _DRAINING_BACKOFF_SECONDS))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()

    def _choose(self) -> Spool | FollowedSpool | None:
        """The next spool to send from; None if there is nothing to send."""
        if len(self._in_flight) < MAX_IN_FLIGHT:
            for _ in range(len(self._turns)):
                self._turns.rotate(-1)
                spool = self._turns[0]
                if self._held_back.waits(spool.id):
                    continue
                if spool.has_unread() and (not self._in_flight or spool.unread_records() >= MAX_ROWS):
                    return spool
        return None

    async def _wait(self) -> None:
        """Waits until _choose() may return another result."""
        in_flight = {id(sent.spool) for sent in self._in_flight}
        for spool in self.spools:
            if spool is not self._own and spool.is_read_out() and id(spool) not in in_flight:
                self._turns.remove(spool)
                # Shielded, so that aclose() neither leaves half a folder nor closes it twice.
                self._removal = asyncio.create_task(asyncio.to_thread(spool.remove))
                # Not here: the connection may fail meanwhile, and whoever drains waits for this alone.
                self._removal.add_done_callback(self._note_removal)
                await asyncio.shield(self._removal)
                return
        self._wake.clear()
        ready = [spool for spool in self._turns if not self._held_back.waits(spool.id)]
        if self._in_flight or all(spool.listen(self._notify) for spool in ready):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._held_back.until()):
                    await self._wake.wait()

    def _note_removal(self, _: asyncio.Task[None]) -> None:
        self._progress.set()
        self.on_removed()

    def _notify(self) -> None:
        if threading.get_ident() == self._thread:
            self._wake.set()
        else:
            with suppress(RuntimeError):  # the loop has ended: nobody is waiting
                self._loop.call_soon_threadsafe(self._wake.set)
