"""An audit service that does what a test tells it to: real gRPC on a real port, a ledger in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from onrecord.audit.v1 import audit_pb2

from recording.delivery.connection import Target
from recording.logger import Row

Context = grpc.aio.ServicerContext[audit_pb2.RecordRequest, audit_pb2.RecordResponse]
Behaviour = Callable[[audit_pb2.RecordRequest, Context], Awaitable[audit_pb2.RecordResponse | None]]


class FakeAudit:
    """Stores and acks. `behave` takes the place of that: it returns the ack, or None to end the stream without one."""

    def __init__(self) -> None:
        self.ledger: dict[str, Row] = {}
        self.requests: list[audit_pb2.RecordRequest] = []
        """In the order in which they came, those without an ack too."""
        self.metadata: list[dict[str, str | bytes]] = []
        """Of each call."""
        self.covered: dict[str, list[tuple[int, int]]] = {}
        """By producer: the ranges of numbers that were acked, in order."""
        self.behave: Behaviour = self.store
        self.changed = asyncio.Condition()

    async def store(self, request: audit_pb2.RecordRequest, _context: Context) -> audit_pb2.RecordResponse:
        """What the audit service does on a good day."""
        response = audit_pb2.RecordResponse(range=request.range)
        for row in rows_of(request):
            if self.ledger.setdefault(row.id, row) is row:
                response.stored += 1
            else:
                response.duplicates += 1
        self.covered.setdefault(request.range.producer_id, []).append((request.range.first, request.range.last))
        async with self.changed:
            self.changed.notify_all()
        return response

    def hold(self) -> asyncio.Event:
        """Has it wait for the event before it stores anything."""
        gate = asyncio.Event()

        async def wait(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
            await gate.wait()
            return await self.store(request, context)

        self.behave = wait
        return gate

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until something holds that requests change."""
        async with self.changed:
            await self.changed.wait_for(holds)

    async def until_stored(self, count: int) -> None:
        """Waits until the ledger has so many rows."""
        await self.until(lambda: len(self.ledger) >= count)

    async def record(
        self, requests: AsyncIterator[audit_pb2.RecordRequest], context: Context
    ) -> AsyncIterator[audit_pb2.RecordResponse]:
        """The RPC of a stream."""
        self._note_call(context)
        pending: asyncio.Queue[audit_pb2.RecordRequest | None] = asyncio.Queue()

        async def read_ahead() -> None:
            async for request in requests:
                await self._note_request(request)
                pending.put_nowait(request)
            pending.put_nowait(None)

        reading = asyncio.create_task(read_ahead())
        try:
            while (request := await pending.get()) is not None:
                response = await self.behave(request, context)
                if response is None:
                    return
                yield response
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def record_batch(self, request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        """The RPC of one batch."""
        self._note_call(context)
        await self._note_request(request)
        response = await self.behave(request, context)
        assert response is not None
        return response

    def _note_call(self, context: Context) -> None:
        self.metadata.append(dict(context.invocation_metadata() or ()))

    async def _note_request(self, request: audit_pb2.RecordRequest) -> None:
        async with self.changed:
            self.requests.append(request)
            self.changed.notify_all()


@asynccontextmanager
async def serving(
    service: FakeAudit,
    port: int = 0,
    options: list[tuple[str, int]] | None = None,
    more: Sequence[grpc.GenericRpcHandler] = (),
) -> AsyncIterator[Target]:
    """The service on a port, and how to reach it. more: other services there."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *(options or [])])
    types = (audit_pb2.RecordRequest.FromString, audit_pb2.RecordResponse.SerializeToString)
    handlers = {
        "Record": grpc.stream_stream_rpc_method_handler(service.record, *types),
        "RecordBatch": grpc.unary_unary_rpc_method_handler(service.record_batch, *types),
    }
    name = audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers), *more))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield Target(f"127.0.0.1:{bound}")
    finally:
        await server.stop(None)


def rows_of(request: audit_pb2.RecordRequest) -> list[Row]:
    """Its rows of all kinds."""
    return [*request.tool_calls, *request.model_requests, *request.sessions]


def refusing(code: grpc.StatusCode, details: str = "no", retry_after_seconds: float | None = None) -> Behaviour:
    """Ends the call with a status."""

    async def behave(_request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        trailing: tuple[tuple[str, bytes], ...] = ()
        if retry_after_seconds is not None:
            retry = error_details_pb2.RetryInfo(
                retry_delay=duration_pb2.Duration(nanos=int(retry_after_seconds * 1_000_000_000))
            )
            status = status_pb2.Status(code=code.value[0], message=details, details=[packed(retry)])
            trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, details, trailing)
        raise AssertionError("abort raises")

    return behave


def packed(message: error_details_pb2.RetryInfo) -> any_pb2.Any:
    """As a status carries it."""
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail
