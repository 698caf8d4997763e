"""onrecord.audit.v1.AuditService on a ledger: what producers send is queued, committed and answered in order."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable

from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc

from audit_svc.errors import QueueFull, StoreClosed
from audit_svc.ledger.batch import Batch, at_once, batch_in_steps, count_rows
from audit_svc.ledger.protocol import Ledger
from service_kit.access.callers import current_caller
from service_kit.errors import Context, PermissionDenied
from service_kit.time_slice import TimeSlice

Commits = asyncio.Queue[Awaitable[audit_pb2.RecordResponse] | None]

STREAM_BATCHES = 16
"""Batches of one stream that may wait for their commit; the stream's flow control holds back the rest."""
WAITING_BYTES = 64 * 2**20
"""Of requests of streams that wait for room in the queue, by what they take in memory."""
ROW_BYTES = 256
"""What a row takes beside its content."""
FEW_ROWS = 50
"""They are read in a millisecond. To give way would take longer: large batches wait for their slices too."""
QUEUE_SECONDS = 10.0
"""How long a stream may wait for room in the queue before its producer must retry."""

_LAST_ANSWERS_SECONDS = 0.5
"""How long a failing stream stays open after its last answer, so that its client can read it."""
_LOOK_AGAIN_SECONDS = 0.002


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """The RPCs of onrecord.audit.v1.AuditService."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._streams: set[asyncio.Task[None]] = set()
        self._draining = False
        self._waiting_bytes = 0
        self._entrance = asyncio.Lock()
        """Held by the stream whose turn it is to queue a batch; the others wait in the order in which they came."""

    async def Record(  # noqa: N802 - named by the proto
        self, request_iterator: AsyncIterator[audit_pb2.RecordRequest], context: Context
    ) -> AsyncIterator[audit_pb2.RecordResponse]:
        """Reads ahead while commits are under way; answers in the order of the requests."""
        if self._draining:
            raise StoreClosed("the ledger is shutting down")
        commits: Commits = asyncio.Queue()
        room = asyncio.Semaphore(STREAM_BATCHES)
        reading = asyncio.create_task(self._read(request_iterator, commits, room))

        def ended(reading: asyncio.Task[None]) -> None:
            # Looked at here, since an earlier batch may end the stream first.
            _ = reading.cancelled() or reading.exception()
            commits.put_nowait(None)

        # Not by the task itself: a drain may cancel it before it has begun.
        reading.add_done_callback(ended)
        self._streams.add(reading)
        answered = False
        try:
            while (commit := await commits.get()) is not None:
                yield await commit
                answered = True
                room.release()
            if self._draining:
                raise StoreClosed("the ledger is shutting down")
            await reading
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the request
            # A status that finds a client writing makes its gRPC library drop the answers that it has not read yet.
            if answered:
                await asyncio.sleep(_LAST_ANSWERS_SECONDS)
            raise
        finally:
            self._streams.discard(reading)
            reading.cancel()

    async def RecordBatch(  # noqa: N802 - named by the proto
        self, request: audit_pb2.RecordRequest, context: Context
    ) -> audit_pb2.RecordResponse:
        """Record for one batch."""
        return await self._ledger.record(await _admit(request))

    def begin_drain(self) -> None:
        """Stops reading from streams. What was queued is committed and answered, then each stream ends in UNAVAILABLE.

        A request that waited for its turn to be queued is not stored, and its producer sends it again.
        """
        self._draining = True
        for reading in self._streams:
            reading.cancel()

    async def _record_when_there_is_room(self, request: audit_pb2.RecordRequest) -> Awaitable[audit_pb2.RecordResponse]:
        """Queues a batch of a stream. Many producers fill the queue together, and to end their streams would cost all
        of them more than to let each wait for its turn.

        Raises:
            QueueFull: there was no room for QUEUE_SECONDS, or too much waits already.
        """
        size_bytes = request.ByteSize()
        size = size_bytes + count_rows(request) * ROW_BYTES
        if self._waiting_bytes and self._waiting_bytes + size > WAITING_BYTES:
            raise QueueFull("too many batches wait for room in the queue already")
        self._waiting_bytes += size
        try:
            return await self._enter(request, size_bytes)
        finally:
            self._waiting_bytes -= size

    async def _enter(self, request: audit_pb2.RecordRequest, size_bytes: int) -> Awaitable[audit_pb2.RecordResponse]:
        deadline = time.monotonic() + QUEUE_SECONDS
        async with self._entrance:
            # Here, since a batch that was read takes several times the memory of its message.
            batch = await _admit(request, size_bytes=size_bytes, of_stream=True)
            while True:
                try:
                    return self._ledger.record(batch)
                except QueueFull:
                    if time.monotonic() > deadline:
                        raise
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def _read(
        self, requests: AsyncIterator[audit_pb2.RecordRequest], commits: Commits, room: asyncio.Semaphore
    ) -> None:
        """Queues the commit of each request. An error is raised, and Record ends the stream with it."""
        # Ahead of each request: one that was read and has no room would be held as long as its stream stands still.
        await room.acquire()
        async for request in requests:
            commits.put_nowait(await self._record_when_there_is_room(request))
            del request
            await room.acquire()


async def _admit(request: audit_pb2.RecordRequest, *, size_bytes: int = 0, of_stream: bool = False) -> Batch:
    """Checks who sends a request, and reads it; every request to record comes through here.

    Raises:
        PermissionDenied: the caller would record as somebody else.
        InvalidRequest: the request as a whole can never be stored.
    """
    caller = current_caller()
    if caller and request.HasField("range") and not caller.may_produce(request.range.producer_id):
        raise PermissionDenied(
            f"{caller.name!r} may record as {caller.name!r} or {caller.name + '/…'!r}, and as nobody else: "
            f"a gateway is told its name by GATEWAY_PRODUCER_NAME"
        )
    recorded_by = caller.name if caller else ""
    now_ms = time.time_ns() // 1_000_000
    steps = batch_in_steps(request, now_ms, recorded_by, size_bytes=size_bytes, of_stream=of_stream)
    return at_once(steps) if count_rows(request) <= FEW_ROWS else await TimeSlice().through(steps)
