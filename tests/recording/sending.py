"""A sender at work, and services that fail it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from onrecord.audit.v1 import audit_pb2

from recording.delivery.connection import Target
from recording.delivery.sender import Sender
from recording.spool import Spool
from tests.recording.fake_audit import Behaviour, Context, FakeAudit
from tests.recording.samples import tool_call


@asynccontextmanager
async def sending(spool: Spool, target: Target, ack_seconds: float = 30.0) -> AsyncIterator[Sender]:
    """A sender at work on spool."""
    sender = Sender(spool, target, ack_seconds=ack_seconds)
    sender.start()
    try:
        yield sender
    finally:
        await sender.aclose()


def record(spool: Spool, first: int, count: int, **fields: object) -> None:
    for number in range(first, first + count):
        assert spool.append(tool_call(number, **fields))


def names(first: int, count: int) -> list[str]:
    return [f"call-{number}" for number in range(first, first + count)]


def failing_once(service: FakeAudit, failure: Behaviour, times: int = 1) -> Behaviour:
    """Fails the first times calls, and stores from then on."""
    left = times

    async def behave(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse | None:
        nonlocal left
        left -= 1
        return await (failure if left >= 0 else service.store)(request, context)

    return behave
