"""AuditService over a real port: the stream's order, and a status and a sentence for everything that is wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc import servicer
from audit_svc.errors import QueueFull
from audit_svc.ledger.batch import Batch
from audit_svc.servicer import STREAM_BATCHES
from audit_svc.services import LedgerServices
from audit_svc.sqlite.store import SqliteLedger
from tests.audit_svc.samples import audit_row, question, record_request, request, row_of, session_row
from tests.audit_svc.serving import serving
from tests.audit_svc.sqlite.test_writer import held
from tests.audit_svc.stubs import LedgerStub

Listing, Sessions = questions_pb2.ListToolCallsRequest, questions_pb2.ListSessionRecordsRequest
Session, Key = questions_pb2.GetSessionRecordRequest, questions_pb2.RowKey
Tail = questions_pb2.TailToolCallsRequest


async def listed(ledger: Any, **filters: Any) -> list[audit_pb2.AuditRow]:
    return list(map(row_of, (await ledger.ListToolCalls(question(Listing, page_size=1000, **filters))).tool_calls))


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def test_a_stream_answers_each_request_in_order_while_several_are_in_flight(ledger, database):
    stream = ledger.Record()
    with held(database):
        for number in range(1, STREAM_BATCHES + 1):
            rows = [audit_row(), audit_row(id="")] if number % 2 else [audit_row()]
            await stream.write(request(*rows, last=number))
        reading = asyncio.ensure_future(stream.read())
        done, _ = await asyncio.wait([reading], timeout=0.1)
        assert not done
    responses = [await reading, *[await stream.read() for _ in range(STREAM_BATCHES - 1)]]
    assert [one.range.last for one in responses] == list(range(1, STREAM_BATCHES + 1))
    assert [len(one.rejections) for one in responses] == [number % 2 for number in range(1, STREAM_BATCHES + 1)]
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() == grpc.StatusCode.OK
    assert len(await listed(ledger)) == STREAM_BATCHES


async def test_a_request_that_can_never_be_stored_ends_the_stream_after_the_answers_to_those_before_it(ledger):
    async def requests() -> AsyncIterator[audit_pb2.RecordRequest]:
        yield request(audit_row(), last=1)
        yield request(audit_row(), last=2)
        yield request(producer_id="p" * 129, last=3)

    stream = ledger.Record(requests())
    assert [(await stream.read()).range.last for _ in range(2)] == [1, 2]
    error = await refusal(stream.read())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "range.producer_id does not have 1 to 128" in error.details()


async def test_a_batch_is_stored_although_its_client_has_gone(small, database):
    ledger, _, store = small
    with held(database):
        first = ledger.RecordBatch(request(audit_row(id="unary")))
        stream = ledger.Record()
        await stream.write(request(audit_row(id="stream")))
        while store.taken < 2:
            await asyncio.sleep(0.01)
        first.cancel()
        stream.cancel()
        await asyncio.sleep(0.1)
        assert await listed(ledger) == []
    # What a later batch is told, it is told after those before it.
    await ledger.RecordBatch(request(audit_row(id="later")))
    assert {row.id for row in await listed(ledger)} == {"unary", "stream", "later"}


async def test_a_stream_that_breaks_in_the_middle_leaves_the_service_as_it_was(ledger):
    for _ in range(20):
        stream = ledger.Record()
        await stream.write(request(audit_row()))
        stream.cancel()
    response = await ledger.RecordBatch(request(audit_row(), last=7))
    assert (response.range.last, response.stored) == (7, 1)


@pytest.mark.parametrize(
    ("method", "asked", "code", "sentence"),
    [
        ("ListToolCalls", Listing(page_size=-1), "INVALID_ARGUMENT", "page_size must not be negative"),
        ("ListToolCalls", Listing(page_token="forged"), "INVALID_ARGUMENT", "page_token is not one"),
        ("ListSessionRecords", questions_pb2.ListSessionRecordsRequest(page_size=-1), "INVALID_ARGUMENT", "page_size"),
        (
            "ListSessionRecords",
            questions_pb2.ListSessionRecordsRequest(page_token="AAAA"),
            "INVALID_ARGUMENT",
            "page_token",
        ),
        ("GetSessionRecord", questions_pb2.GetSessionRecordRequest(), "INVALID_ARGUMENT", "session.id is empty"),
        (
            "GetSessionRecord",
            questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="x")),
            "NOT_FOUND",
            "no session with this id",
        ),
        ("RecordBatch", request(*[audit_row(id="x")] * 10_001), "INVALID_ARGUMENT", "10001 rows"),
        ("RecordBatch", request(audit_row(tool_name="x" * 17 * 2**20)), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_request_has_its_status_and_a_sentence_and_the_service_goes_on(
    ledger, method, asked, code, sentence
):
    error = await refusal(getattr(ledger, method)(asked))
    assert error.code().name == code
    assert sentence in error.details()
    assert (await ledger.RecordBatch(request(audit_row()))).stored == 1


async def test_a_bad_row_is_rejected_and_its_neighbours_are_stored(ledger):
    rows = [
        audit_row(id="good"),
        audit_row(id=""),
        audit_row(id="huge", tool_name="x" * 3_000_000),
        audit_row(id="early", created_at_ms=1),
        audit_row(id="late", created_at_ms=2**62),
        audit_row(id="fine"),
    ]
    response = await ledger.RecordBatch(request(*rows))
    assert response.stored == 2
    assert [one.id for one in response.rejections] == ["", "huge", "early", "late"]
    assert {row.id for row in await listed(ledger)} == {"good", "fine"}


async def test_sessions_can_be_listed_and_got(ledger):
    await ledger.RecordBatch(record_request(sessions=[session_row(id="a"), session_row(id="b")]))
    found = await ledger.ListSessionRecords(question(questions_pb2.ListSessionRecordsRequest, engine="ollama"))
    assert list(map(row_of, found.sessions)) == [session_row(id="b"), session_row(id="a")]
    got = await ledger.GetSessionRecord(questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="a")))
    assert got.session.session == session_row(id="a")


class WatchedStore(SqliteLedger):
    """Tells how many batches it has taken and refused."""

    taken = 0
    refused = 0

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        try:
            response = super().record(batch)
        except QueueFull:
            self.refused += 1
            raise
        self.taken += 1
        return response


@pytest.fixture
async def small(database: Path) -> AsyncIterator[tuple[Any, LedgerServices, WatchedStore]]:
    """A ledger whose queue holds ten rows, its services and its store."""
    store = WatchedStore.open(database, queue_rows=10)
    async with serving(store) as (address, services), grpc.aio.insecure_channel(address) as channel:
        yield LedgerStub(channel), services, store
    await store.close()


async def test_a_full_queue_asks_for_another_try_and_says_when(small, database):
    ledger, _, store = small
    with held(database):
        calls = [ledger.RecordBatch(request(*[audit_row() for _ in range(5)])) for _ in range(8)]
        while store.taken + store.refused < len(calls):
            await asyncio.sleep(0.01)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    # Two fill the queue, and at most as many had been taken by the writer before.
    assert 4 <= len(refused) <= 6
    for error in refused:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(error).details[1].Unpack(retry)  # type: ignore[arg-type]  # it has what a call has
        assert retry.retry_delay.ToMilliseconds() == 250
        assert dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "250"
    stored = [answer.stored for answer in answers if isinstance(answer, audit_pb2.RecordResponse)]
    assert stored == [5] * (8 - len(refused))


async def send_more_than_fits(stream: Any, store: WatchedStore) -> None:
    """The writer takes the first batch alone, so that the rest are more than the queue holds."""
    for number in range(1, STREAM_BATCHES + 1):
        await stream.write(request(audit_row(), last=number))
        while number == 1 and not (store.taken and not store.queued_rows):
            await asyncio.sleep(0.01)


async def test_a_stream_waits_for_room_in_the_queue(small, database):
    """More is sent than the queue holds, and while the disk does not take it, it waits; no answer is missing then."""
    ledger, _, store = small
    stream = ledger.Record()
    with held(database):
        await send_more_than_fits(stream, store)
        while store.refused < 10:
            await asyncio.sleep(0.01)
    await stream.done_writing()
    assert [answer.range.last async for answer in stream] == list(range(1, STREAM_BATCHES + 1))


@pytest.mark.long
async def test_a_stream_that_waits_too_long_is_refused_after_the_answers_to_what_was_taken(
    small, database, monkeypatch
):
    monkeypatch.setattr(servicer, "QUEUE_SECONDS", 0.3)
    ledger, services, store = small
    stream = ledger.Record()
    with held(database):
        await send_more_than_fits(stream, store)
        async with asyncio.timeout(30):
            (reading,) = services._audit._streams
            while not reading.done():
                await asyncio.sleep(0.01)
        assert store.refused
    await stream.done_writing()
    answered: list[int] = []
    refused = None
    while refused is None:
        try:
            answered.append((await stream.read()).range.last)  # EOF has none: then nothing was refused
        except grpc.aio.AioRpcError as error:
            refused = error.code()
    # Ten fill the queue, besides those that the writer had taken before.
    assert answered == list(range(1, len(answered) + 1))
    assert 10 <= len(answered) < STREAM_BATCHES
    assert refused == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_drain_answers_what_was_read_and_ends_the_streams(small, database):
    ledger, services, store = small
    stream = ledger.Record()
    with held(database):
        await stream.write(request(audit_row(), last=1))
        while not store.taken:
            await asyncio.sleep(0.01)
        services.begin_drain()
    assert (await stream.read()).range.last == 1
    assert (await refusal(stream.read())).code() == grpc.StatusCode.UNAVAILABLE
    assert (await refusal(ledger.Record().read())).code() == grpc.StatusCode.UNAVAILABLE
