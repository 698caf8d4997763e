"""The events of a turn, for its clients."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress

from google.rpc import status_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import EventsGone, ReadTooSlowly
from gateway_svc.turns.account import Totals
from service_kit.time_slice import TimeSlice

COALESCE_SECONDS = 0.005
"""How long to gather text after some was sent: models write hundreds of pieces a second, and a message costs 50 µs."""

MAX_WAITING_BYTES = 2**20
"""How much may be buffered for a client, besides the buffers of gRPC and the kernel."""

MAX_PIECES = 1000
"""Of text that wait to be joined: each takes far more memory than its characters."""

HEARTBEAT_SECONDS = 15.0
"""How long a client hears nothing before it gets a heartbeat."""

MAX_KEPT_BYTES = 2 * 2**20
"""How much of a turn's events is kept for those who attach to it."""

EVENT_BYTES = 48
"""What an event takes in memory beside its content."""


def now_ms() -> int:
    """The time in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class TurnEvents:
    """The events of one turn, from the loop that makes them to the RPCs that stream them.

    Each gets its number, its time and its step here. Putting never waits, so an event can be put wherever one happens.
    Who puts many awaits writable() in between: a client that does not read holds up its own turn, and does not fill the
    gateway's memory. Events that were read are kept for others, the last MAX_KEPT_BYTES of them.
    """

    def __init__(self, grown: Callable[[int], None] | None = None) -> None:
        """`grown` hears by how many bytes what is kept has grown or, below 0, shrunk."""
        self._grown = grown or _ignore
        self._sequence = 0
        self._step = 0
        self._kept = deque[bytes]()
        """As they are sent: as messages they would take 900 bytes each besides."""
        self._kept_bytes = 0
        self._text: list[str] = []
        self._text_at = float("-inf")
        """When text was sent last, by time.monotonic()."""
        self._put_bytes = 0
        self._readers = set[_Reader]()
        self._closed = False
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def first(self) -> int:
        """The number of the first event that is kept; 1 if there is none."""
        return self._sequence - len(self._kept) + 1

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self._sequence

    async def writable(self) -> None:
        """Waits until fewer than MAX_WAITING_BYTES wait for the client that reads fastest of those it waits for."""
        await self._writable.wait()

    def begin_step(self) -> None:
        """A step begins: what is put from now on happens in it."""
        self._flush_text()
        self._step += 1

    def put_text(self, text: str) -> None:
        """Adds a piece of the answer."""
        self._text.append(text)
        if len(self._text) >= MAX_PIECES:
            self._flush_text(more_may_come=True)
        self._count(len(text))

    def put(self, event: pb.TurnEvent) -> None:
        """Adds an event."""
        self._flush_text()
        self._append(event)
        self._count(event.ByteSize())

    def warn(self, code: pb.WarningCode.ValueType, message: str) -> None:
        """Sends the client a warning."""
        self.put(pb.TurnEvent(warning=pb.Warning(code=code, message=message)))

    def close(self) -> None:
        """Ends the streams: no more events come."""
        self._flush_text()
        self._closed = True
        self._wake()

    def forget(self) -> None:
        """Keeps nothing any more. Those who read have what they read."""
        self._grown(-self._kept_bytes)
        self._kept_bytes = 0
        self._grown = _ignore

    def drop(self) -> None:
        """Keeps nothing but what a client waits for, and the last event."""
        self._drop(0)

    @property
    def kept_bytes(self) -> int:
        """What the events that are kept take."""
        return self._kept_bytes

    def cut_off(self) -> bool:
        """Lets the turn wait for no reader that is behind, and says whether one was. It hears so when it reads on."""
        behind = [reader for reader in self._readers if reader.holds_up and reader.sequence < self._sequence]
        for reader in behind:
            reader.holds_up, reader.cut_off = False, True
        self._look_at_readers()
        self._drop(0)
        return bool(behind)

    async def stream(self, after: int = 0, *, holds_up: bool = False) -> AsyncGenerator[pb.TurnEvent, None]:
        """Yields all events after a number in order until close(), with adjacent pieces of text joined, and heartbeats.

        `holds_up`: whether the turn waits for this reader, if nobody like it reads faster.

        Raises:
            EventsGone: the next event is not kept any more.
            ReadTooSlowly: it was cut off.
        """
        time_slice = TimeSlice()
        with self._reading(after, holds_up) as reader:
            while True:
                if not reader.news.is_set():  # or a timeout is made for nothing
                    with suppress(TimeoutError):
                        async with asyncio.timeout(HEARTBEAT_SECONDS):
                            await reader.news.wait()
                if not reader.news.is_set():
                    yield pb.TurnEvent(at_ms=now_ms(), step=self._step, heartbeat=pb.Heartbeat())
                    continue
                gather = self._text_at + COALESCE_SECONDS - time.monotonic()
                if reader.sequence >= self._sequence and not self._closed and gather > 0:
                    await asyncio.sleep(gather)
                if time_slice.is_over():  # many may be able to go on at once, such as when their connection breaks
                    await time_slice.give_way()
                reader.news.clear()
                self._flush_text(more_may_come=not self._closed)
                closed, taken, last = self._closed, self._put_bytes, self._sequence
                while reader.sequence < last:
                    if time_slice.is_over():
                        await time_slice.give_way()
                    # One by one: a list of them would outlive their being dropped, as long as its reader stands still.
                    yield self._next(reader)
                    reader.sequence += 1
                reader.read_bytes = taken
                self._look_at_readers()
                if closed:
                    return

    @contextmanager
    def _reading(self, after: int, holds_up: bool) -> "Iterator[_Reader]":
        reader = _Reader(after, holds_up)
        self._readers.add(reader)
        self._look_at_readers()
        try:
            yield reader
        finally:
            self._readers.remove(reader)
            self._look_at_readers()

    def _next(self, reader: "_Reader") -> pb.TurnEvent:
        if reader.cut_off:
            raise ReadTooSlowly(
                "clients that read slowly held up too many events: read faster, and go on with AttachTurn or anew"
            )
        if reader.sequence + 1 < self.first:
            raise EventsGone(self.first)
        return pb.TurnEvent.FromString(self._kept[reader.sequence + 1 - self.first])

    def _count(self, size: int) -> None:
        self._put_bytes += size
        self._look_at_readers()
        self._wake()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.news.set()

    def _look_at_readers(self) -> None:
        """Lets the turn go on, or holds it up, as far as those have read that it waits for."""
        read = max((reader.read_bytes for reader in self._readers if reader.holds_up), default=self._put_bytes)
        if self._put_bytes - read < MAX_WAITING_BYTES:
            self._writable.set()
        else:
            self._writable.clear()

    def _flush_text(self, *, more_may_come: bool = False) -> None:
        text = "".join(self._text)
        self._text.clear()
        # A character may come as two halves of a surrogate pair; a half that stays alone is replaced.
        if more_may_come and "\ud800" <= text[-1:] <= "\udbff":
            self._text.append(text[-1])
            text = text[:-1]
        if text:
            whole = text
            try:
                text.encode()
            except UnicodeEncodeError:
                whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            event = pb.TurnEvent()
            event.text_delta.text = whole  # a TextDelta as an argument would be copied
            self._append(event)
            self._text_at = time.monotonic()

    def _append(self, event: pb.TurnEvent) -> None:
        self._sequence += 1
        event.sequence, event.at_ms, event.step = self._sequence, now_ms(), self._step
        encoded = event.SerializeToString()
        self._kept.append(encoded)
        size = len(encoded) + EVENT_BYTES
        self._kept_bytes += size
        self._grown(size)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._drop(MAX_KEPT_BYTES)

    def _drop(self, most: int) -> None:
        read = max((reader.sequence for reader in self._readers if reader.holds_up), default=self._sequence)
        before = self._kept_bytes
        while self._kept_bytes > most and len(self._kept) > 1 and self.first <= read:
            self._kept_bytes -= len(self._kept.popleft()) + EVENT_BYTES
        self._grown(self._kept_bytes - before)


class _Reader:
    """Somebody who reads events."""

    def __init__(self, after: int, holds_up: bool) -> None:
        self.sequence = after
        """Of the last event that it has read."""
        self.read_bytes = 0
        """How much had been put when it last took what there was."""
        self.holds_up = holds_up
        self.cut_off = False
        self.news = asyncio.Event()
        self.news.set()


def _ignore(_size: int) -> None: ...


class SilentEvents(TurnEvents):
    """Events that are discarded."""

    def put_text(self, text: str) -> None:
        """Discards it."""

    def put(self, event: pb.TurnEvent) -> None:
        """Discards it."""


def accepted(session_id: str, turn_id: str, at_ms: int) -> pb.TurnEvent:
    """The first event of a turn."""
    names = pb.TurnAccepted(session_id=session_id, turn_id=turn_id)
    return pb.TurnEvent(sequence=1, at_ms=at_ms, turn_accepted=names)


def tool_call_started(row: audit_pb2.AuditRow, expires_at_ms: int | None = None) -> pb.TurnEvent:
    """What a client is told of the intent of a call; expires_at_ms is set where it waits for an answer until then."""
    return pb.TurnEvent(
        tool_call_started=pb.ToolCallStarted(
            tool_call_id=row.id,
            tool_name=row.tool_name,
            args_summary=row.args_summary,
            pending=None if expires_at_ms is None else pb.PendingAnswer(expires_at_ms=expires_at_ms),
            args_digest=row.args_digest if row.HasField("args_digest") else None,
        )
    )


def tool_call_finished(row: audit_pb2.AuditRow) -> pb.TurnEvent:
    """The event for the row of an ended call."""
    return pb.TurnEvent(
        tool_call_finished=pb.ToolCallFinished(
            tool_call_id=row.id,
            tool_name=row.tool_name,
            outcome=row.outcome,
            duration_ms=row.duration_ms,
            exit_code=row.exit_code if row.HasField("exit_code") else None,
            http_status=row.http_status if row.HasField("http_status") else None,
            error=row.error if row.HasField("error") else None,
            result_truncated=row.result_truncated,
            result_bytes=row.result_bytes,
        )
    )


def step_finished(cost: audit_pb2.CostRow) -> pb.TurnEvent:
    """What a client is told of the row of a model request."""
    usage = Totals.of(cost).to_usage()
    return pb.TurnEvent(step_finished=pb.StepFinished(model=cost.model, usage=usage, duration_ms=cost.duration_ms))


def turn_finished(
    stop_reason: pb.StopReason.ValueType, totals: Totals, duration_ms: int, error: status_pb2.Status | None
) -> pb.TurnEvent:
    """The last event of a turn."""
    return pb.TurnEvent(
        turn_finished=pb.TurnFinished(
            stop_reason=stop_reason,
            error=error,
            tool_calls=totals.tool_calls,
            usage=totals.to_usage(),
            duration_ms=duration_ms,
        )
    )
