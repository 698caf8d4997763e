"""The door: what came becomes rows, the rows reach the disk, and then there is an answer.

An answer means safe. What cannot be made safe is refused as passing, and stays with whoever sent it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import Message

from intake_svc.calls.calls import Calls, Joined
from intake_svc.dialects import Reading, joined
from intake_svc.dialects.one_source import OneSource
from intake_svc.errors import ShuttingDown, StoreUnavailable
from intake_svc.labels import SessionLabels
from intake_svc.metrics import DoorMetrics
from intake_svc.numbers import Continued
from intake_svc.settings import IntakeSettings
from intake_svc.signals import Signal
from intake_svc.unpacking import Unpacked
from recording.logger import AuditRefused
from recording.producing.spool_logger import Taken
from recording.record import Record
from recording.spool import SpoolClosed
from service_kit.access.callers import current_caller
from service_kit.errors import Overloaded

MAX_TOLD = 10
"""Of the reasons why something was not understood, in one answer."""
NOT_SAFE = "what was sent cannot be made safe now: send it again later"
_LOOK_SECONDS = 0.01


class Door:
    """Takes exports, whichever way they come. Its methods belong to the event loop."""

    def __init__(
        self, record: Record, calls: Calls, labels: SessionLabels, metrics: DoorMetrics, settings: IntakeSettings
    ) -> None:
        self._record = record
        self._calls = calls
        self._labels = labels
        self._metrics = metrics
        self._settings = settings
        told_by = settings.claude_signal
        self._one_source = OneSource({} if told_by == "both" else {"claude": told_by})
        self._continued = Continued()
        # One thread: one request at a time is unpacked, whatever comes at once, and the event loop stays free.
        self._thread = ThreadPoolExecutor(1, "intake")
        self._waiting_bytes = 0
        self._running = 0
        self._done = asyncio.Event()
        self._draining = False
        metrics.add_waiting(lambda: self._waiting_bytes)

    @contextmanager
    def holding(self, size: int) -> Iterator[Callable[[int], None]]:
        """A place for a request's bytes while the body runs; what it gives takes as many more.

        Raises:
            Overloaded: there is no room.
            ShuttingDown: the service drains.
        """
        if self._draining:
            raise ShuttingDown("the service ends: send it again, to the next one")
        held = 0

        def hold(more: int) -> None:
            nonlocal held
            if self._waiting_bytes + more > self._settings.max_waiting_bytes:
                raise Overloaded("too many bytes wait for their answers here already: come again later")
            held += more
            self._waiting_bytes += more

        self._running += 1
        try:
            hold(size)
            yield hold
        finally:
            self._waiting_bytes -= held
            self._running -= 1
            self._done.set()

    async def take(self, signal: Signal, unpack: Callable[[], Unpacked]) -> Message:
        """Takes one export, and returns the answer to it once its rows are safe.

        Args:
            signal: what came.
            unpack: reads what came, in a thread; what it raises is raised.

        Raises:
            StoreUnavailable: the rows are not safe, and are to be sent again.
        """
        caller = current_caller()
        principal = caller.name if caller else ""
        loop = asyncio.get_running_loop()
        reading, left_out, taken = await loop.run_in_executor(self._thread, self._read, signal, unpack, principal)
        if taken:
            await self._safe(taken)
        elif reading.calls:
            await self._synced()  # what they repeat may not be on the disk yet
            if self._record.spool.sync_failed:
                raise StoreUnavailable(NOT_SAFE)
        self._metrics.count(signal.name, reading, left_out)
        return signal.answer(len(reading.not_understood), _reasons(reading.not_understood))

    def begin_drain(self) -> None:
        """Takes nothing new."""
        self._draining = True

    async def drain(self) -> None:
        """Waits until what was taken is answered."""
        while self._running:
            self._done.clear()
            await self._done.wait()

    def close(self) -> None:
        """Ends its thread."""
        self._thread.shutdown()

    def _read(
        self, signal: Signal, unpack: Callable[[], Unpacked], principal: str
    ) -> tuple[Reading, int, Taken | None]:
        """What came; how many rows another signal tells; and the rest in the spool, None where there is none."""
        message, spoiled = unpack()
        whole = joined([*map(signal.read, getattr(message, signal.resources)), Reading(not_understood=spoiled)])
        reading, left_out = self._one_source.choose(whole, signal.name, principal)
        if principal:
            told: list[Any] = [*reading.calls, *reading.intents, *reading.costs]
            for row in told:
                row.principal = principal
        joined_calls = self._join(reading)
        rows: list[Any] = [*joined_calls.rows, *reading.costs, *self._labels.rows(reading.labels)]
        # behind the rows: what is not taken is not said to have come
        rows += self._continued.ranges(reading.sequence, principal)
        if not rows:
            self._one_source.remember(whole, reading, signal.name, principal)
            return reading, left_out, None
        try:
            taken = self._record.logger.take(rows)
        except SpoolClosed:
            taken = None
        if taken is None:
            raise StoreUnavailable(NOT_SAFE)
        self._calls.settle(joined_calls)
        self._labels.remember(rows)
        self._continued.remember(reading.sequence, principal)
        self._one_source.remember(whole, reading, signal.name, principal)
        return reading, left_out, taken

    def _join(self, reading: Reading) -> Joined:
        """The calls, with what hooks and earlier exports have told of them."""
        try:
            self._calls.decide(reading.intents)
            found = self._calls.join(reading.calls)
        except OSError:
            raise StoreUnavailable(NOT_SAFE) from None
        if found.duplicates:
            self._metrics.count_hooks("told_by_telemetry_too", found.duplicates)
        return found

    async def _synced(self) -> None:
        try:
            await self._record.logger.synced()
        except AuditRefused:
            raise StoreUnavailable(NOT_SAFE) from None

    async def _safe(self, taken: Taken) -> None:
        await self._synced()
        if self._settings.answer_after == "ledger":
            try:
                async with asyncio.timeout(self._settings.answer_seconds):
                    while not taken.is_stored():  # noqa: ASYNC110 - an ack is no event
                        await asyncio.sleep(_LOOK_SECONDS)
            except TimeoutError:
                self._record.logger.call_for_look()
                raise StoreUnavailable("the ledger has not answered in time: send it again later") from None


def _reasons(not_understood: tuple[str, ...]) -> str:
    """What a client is told, such as "3 x the span is of no known producer"."""
    counts = Counter(not_understood).most_common(MAX_TOLD)
    return "; ".join(f"{count} x {reason}" if count > 1 else reason for reason, count in counts)
