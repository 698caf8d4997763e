"""The events of a turn, for its client."""

import asyncio
import time
from collections.abc import AsyncIterator

from google.rpc import status_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.turns.account import Totals

COALESCE_SECONDS = 0.005
"""How long to gather text before sending it: models write hundreds of pieces a second, and a message costs 50 µs."""

MAX_WAITING_BYTES = 2**20
"""How much may be buffered for a client, besides the buffers of gRPC and the kernel."""


def now_ms() -> int:
    """The time in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class TurnEvents:
    """The events of one turn, from the loop that makes them to the RPC that streams them.

    Each gets its number, its time and its step here. Putting never waits, so an event can be put wherever one happens.
    Who puts many awaits writable() in between: a client that does not read holds up its own turn, and does not fill the
    gateway's memory.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._step = 0
        self._events: list[pb.TurnEvent] = []
        self._text: list[str] = []
        self._ready = asyncio.Event()
        self._closed = False
        self._waiting_bytes = 0
        self._writable = asyncio.Event()
        self._writable.set()

    async def writable(self) -> None:
        """Waits until fewer than MAX_WAITING_BYTES are buffered."""
        await self._writable.wait()

    def begin_step(self) -> None:
        """A step begins: what is put from now on happens in it."""
        if self._text:
            self._flush_text()
        self._step += 1

    def put_text(self, text: str) -> None:
        """Adds a piece of the answer."""
        self._text.append(text)
        self._count(len(text))
        self._ready.set()

    def put(self, event: pb.TurnEvent) -> None:
        """Adds an event."""
        if self._text:
            self._flush_text()
        self._append(event)
        self._count(event.ByteSize())
        self._ready.set()

    def warn(self, code: pb.WarningCode.ValueType, message: str) -> None:
        """Sends the client a warning."""
        self.put(pb.TurnEvent(warning=pb.Warning(code=code, message=message)))

    def close(self) -> None:
        """Ends the stream: no more events come."""
        if self._text:
            self._flush_text()
        self._closed = True
        self._ready.set()

    async def stream(self) -> AsyncIterator[pb.TurnEvent]:
        """Yields all events in order until close(), with adjacent pieces of text joined."""
        while True:
            await self._ready.wait()
            if not self._events and not self._closed:
                await asyncio.sleep(COALESCE_SECONDS)
            self._ready.clear()
            if self._text:
                self._flush_text()
            closed, events, self._events = self._closed, self._events, []
            taken = self._waiting_bytes
            for event in events:
                yield event
            self._count(-taken)
            if closed:
                return

    def _count(self, size: int) -> None:
        self._waiting_bytes += size
        if self._waiting_bytes < MAX_WAITING_BYTES:
            self._writable.set()
        else:
            self._writable.clear()

    def _flush_text(self) -> None:
        # A character may have come as two halves of a surrogate pair; a lone half is replaced.
        text = "".join(self._text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        self._append(pb.TurnEvent(text_delta=pb.TextDelta(text=text)))
        self._text.clear()

    def _append(self, event: pb.TurnEvent) -> None:
        self._sequence += 1
        event.sequence, event.at_ms, event.step = self._sequence, now_ms(), self._step
        self._events.append(event)


class SilentEvents(TurnEvents):
    """Events that are discarded."""

    def put_text(self, text: str) -> None:
        """Discards it."""

    def put(self, event: pb.TurnEvent) -> None:
        """Discards it."""


def tool_call_started(row: audit_pb2.AuditRow, expires_at_ms: int | None = None) -> pb.TurnEvent:
    """What a client is told of the intent of a call; expires_at_ms is set where it waits for an answer until then."""
    return pb.TurnEvent(
        tool_call_started=pb.ToolCallStarted(
            tool_call_id=row.id,
            tool_name=row.tool_name,
            args_summary=row.args_summary,
            pending=None if expires_at_ms is None else pb.PendingAnswer(expires_at_ms=expires_at_ms),
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
    totals = Totals()
    totals.add_request(cost)
    finished = pb.StepFinished(model=cost.model, usage=totals.to_usage(), duration_ms=cost.duration_ms)
    return pb.TurnEvent(step_finished=finished)


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
