"""The sender against a real gRPC server: every row gets there, whatever happens on the way."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from structlog.testing import capture_logs

from demo.processes import Service, start_service
from recording.delivery.connection import Target
from recording.delivery.sender import MAX_IN_FLIGHT, MAX_ROWS, Sender
from recording.spool import Folders, Spool, SpoolOptions
from tests.recording.fake_audit import Behaviour, Context, FakeAudit, refusing, rows_of, serving
from tests.recording.samples import crash, intent, open_spool, opened, segments_of, tool_call
from tests.support.ports import own_port


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


async def test_rows_reach_the_ledger_in_order_and_their_numbers_are_covered(tmp_path: Path) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool:
        record(spool, 0, 1234)
        async with serving(service) as target, sending(spool, target) as sender:
            spool.append(audit_pb2.CostRow(id="cost"))
            spool.append_intent(intent(2000))
            spool.append(audit_pb2.SessionRow(id="session"))
            assert await sender.drain(20)
            assert list(service.ledger) == [*names(0, 1234), "cost", "session"]
            ranges = service.covered[spool.id]
            assert ranges[0][0] == 1
            assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(ranges))
            assert ranges[-1][1] == 1237, "the intent's number is covered too"
            assert max(len(rows_of(request)) for request in service.requests) == MAX_ROWS
            assert (spool.counters.acked, spool.counters.stored, spool.counters.reconnects) == (1236, 1236, 0)


async def test_a_batch_has_at_most_a_mebibyte(tmp_path: Path) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool:
        record(spool, 0, 30, args_summary="x" * 100_000)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(20)
        assert max(request.ByteSize() for request in service.requests) <= 2**20 + 200
        assert len(service.requests) == 3


async def test_a_row_is_sent_when_it_comes_whichever_thread_brings_it(tmp_path: Path) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool:
        async with serving(service) as target, sending(spool, target):
            for number in range(5):
                if number % 2:
                    spool.append(tool_call(number))
                else:
                    await asyncio.to_thread(spool.append, tool_call(number))
                await service.until_stored(number + 1)
            threads = [threading.Thread(target=record, args=(spool, 1000 * n, 200)) for n in range(1, 5)]
            for thread in threads:
                thread.start()
            await service.until_stored(805)
            for thread in threads:
                thread.join()


async def test_four_full_batches_are_under_way_and_no_fifth(tmp_path: Path) -> None:
    service = FakeAudit()
    gate = asyncio.Event()

    async def wait(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        await gate.wait()
        return await service.store(request, context)

    service.behave = wait
    with opened(tmp_path) as spool:
        record(spool, 0, 8 * MAX_ROWS)
        async with serving(service) as target, sending(spool, target) as sender:
            await service.until(lambda: len(service.requests) == MAX_IN_FLIGHT)
            await asyncio.sleep(0.1)
            assert len(service.requests) == MAX_IN_FLIGHT
            gate.set()
            assert await sender.drain(20)


async def test_what_comes_while_a_batch_is_under_way_goes_together(tmp_path: Path) -> None:
    """Batches grow with the load by themselves, without a timer."""
    service = FakeAudit()
    gate = asyncio.Event()

    async def wait(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        await gate.wait()
        return await service.store(request, context)

    service.behave = wait
    with opened(tmp_path) as spool:
        async with serving(service) as target, sending(spool, target) as sender:
            record(spool, 0, 1)
            await service.until(lambda: service.requests)
            for number in range(1, 100):
                record(spool, number, 1)
                await asyncio.sleep(0)
            gate.set()
            assert await sender.drain(20)
        assert [len(request.tool_calls) for request in service.requests] == [1, 99]


async def test_a_lost_ack_costs_a_resend_and_no_double(tmp_path: Path) -> None:
    service = FakeAudit()

    async def commit_and_die(request: audit_pb2.RecordRequest, context: Context) -> None:
        await service.store(request, context)

    service.behave = failing_once(service, commit_and_die, times=3)
    with opened(tmp_path) as spool:
        record(spool, 0, 700)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(20)
        assert list(service.ledger) == names(0, 700)
        assert spool.counters.resent >= 500
        assert spool.counters.duplicates >= 500
        assert spool.counters.stored + spool.counters.duplicates == spool.counters.acked == 700
        assert spool.counters.reconnects == 3


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.OK,
    ],
)
async def test_no_status_costs_a_row(tmp_path: Path, code: grpc.StatusCode) -> None:
    """Whatever the service says to everything, all rows are there when it has come to its senses."""
    service = FakeAudit()

    async def end(_request: audit_pb2.RecordRequest, _context: Context) -> None:
        return None

    refuse = end if code is grpc.StatusCode.OK else refusing(code)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target) as sender:
            service.behave = refuse
            await service.until(lambda: len(service.requests) >= 3)
            service.behave = service.store
            assert await sender.drain(20)
        assert list(service.ledger) == names(0, 10)
        assert (spool.counters.rejected, spool.counters.dropped) == (0, 0)
    assert not (tmp_path / "spool" / "dead-letters").exists()


async def test_a_service_that_is_not_there_yet_gets_everything_later(tmp_path: Path) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool, own_port() as port:
        record(spool, 0, 10)
        async with sending(spool, Target(f"127.0.0.1:{port}")) as sender:
            while spool.counters.reconnects < 3:
                await asyncio.sleep(0.01)
            async with serving(service, port):
                assert await sender.drain(20)
            record(spool, 10, 10)
            async with serving(service, port):
                await service.until_stored(20)


async def test_it_leaves_the_service_alone_for_as_long_as_asked(tmp_path: Path) -> None:
    service = FakeAudit()
    came: list[float] = []

    async def busy(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse | None:
        came.append(time.monotonic())
        if len(came) == 1:
            return await refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", 0.5)(request, context)
        return await service.store(request, context)

    service.behave = busy
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target):
            await service.until_stored(10)
    assert came[1] - came[0] >= 0.5


async def test_a_service_that_takes_and_never_acks_is_left(tmp_path: Path) -> None:
    service = FakeAudit()

    async def hang(_request: audit_pb2.RecordRequest, _context: Context) -> None:
        await asyncio.Event().wait()

    service.behave = failing_once(service, hang)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target, ack_seconds=0.2):
            await service.until_stored(10)
        assert spool.counters.reconnects >= 1, "each that is slower than so long is left too"


@pytest.mark.long
async def test_a_connection_into_a_black_hole_is_left(tmp_path: Path) -> None:
    """Something accepts and never answers, as a dead firewall does: the next connection must be another one."""
    connections: list[asyncio.StreamWriter] = []
    service = FakeAudit()

    async def swallow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await asyncio.Event().wait()

    with opened(tmp_path) as spool, own_port() as port:
        hole = await asyncio.start_server(swallow, "127.0.0.1", port)
        record(spool, 0, 10)
        async with sending(spool, Target(f"127.0.0.1:{port}"), ack_seconds=0.3):
            while len(connections) < 2:
                await asyncio.sleep(0.01)
            hole.close()
            async with serving(service, port):
                await service.until_stored(10)
    for writer in connections:
        writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("other", [{"last": 0}, {"last": 501}, {"first": 2}, {"producer_id": "another"}])
async def test_an_ack_for_something_else_trims_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    service = FakeAudit()

    async def confuse(request: audit_pb2.RecordRequest, _context: Context) -> audit_pb2.RecordResponse:
        covered = audit_pb2.SequenceRange()
        covered.CopyFrom(request.range)
        for name, value in other.items():
            setattr(covered, name, value)
        return audit_pb2.RecordResponse(range=covered)

    service.behave = failing_once(service, confuse)
    with opened(tmp_path) as spool:
        record(spool, 0, 700)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(20)
        assert list(service.ledger) == names(0, 700)


async def test_a_drain_that_cannot_finish_leaves_the_rest_for_the_next_start(tmp_path: Path) -> None:
    service = FakeAudit()
    service.behave = refusing(grpc.StatusCode.UNAVAILABLE)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target) as sender:
            assert not await sender.drain(0.3)
    service.behave = service.store
    with opened(tmp_path) as spool:
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(20)
    assert list(service.ledger) == names(0, 10)


async def test_a_token_is_asked_for_at_each_connection(tmp_path: Path) -> None:
    service = FakeAudit()
    service.behave = failing_once(service, refusing(grpc.StatusCode.UNAUTHENTICATED))
    tokens = iter(["old", "new"])
    with opened(tmp_path) as spool:
        record(spool, 0, 1)
        async with serving(service) as target:
            target = replace(target, metadata=lambda: [("authorization", f"Bearer {next(tokens)}")])
            async with sending(spool, target) as sender:
                assert await sender.drain(20)
    assert [call["authorization"] for call in service.metadata] == ["Bearer old", "Bearer new"]


async def test_a_gap_of_an_adopted_spool_is_told_before_it_goes(tmp_path: Path) -> None:
    """Also when all its other rows are acked before anybody has written it."""
    service = FakeAudit()
    with opened(tmp_path / "state") as spool:
        record(spool, 0, 3)
        spool.note_unrecorded("call-3")
        left = crash(tmp_path / "state")
    with opened(tmp_path / "own") as own:
        (other,) = Folders(left / "spool", SpoolOptions(sync_interval_ms=500)).adopt(1)
        async with serving(service) as target, sending(own, target) as sender:
            sender.adopt(other)
            assert await sender.drain(20)
    *rows, gap = service.ledger.values()
    assert [row.id for row in rows] == names(0, 3)
    assert isinstance(gap, audit_pb2.AuditRow)
    assert "1 tool calls" in gap.error


async def test_adopted_spools_are_sent_under_their_own_ids_and_go(tmp_path: Path) -> None:
    service = FakeAudit()
    left = [open_spool(tmp_path) for _ in range(3)]
    for number, spool in enumerate(left):
        record(spool, 1000 * number, 600)
        spool.append_intent(intent(1000 * number + 999))
        spool.close()
    with opened(tmp_path) as own:
        others = Folders(tmp_path / "spool", SpoolOptions(counters=own.counters)).adopt(5)
        assert len(others) == 2
        async with serving(service) as target, sending(own, target) as sender:
            for spool in others:
                sender.adopt(spool)
            assert await sender.drain(20)
            assert sender.adopted == 0
        assert {path.name for path in (tmp_path / "spool").iterdir()} == {own.id}
    for spool in left:
        ranges = service.covered[spool.id]
        assert ranges[0][0] == 1
        assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(ranges))
    assert len(service.ledger) == 3 * 601
    interrupted = service.ledger["call-1999"]
    assert isinstance(interrupted, audit_pb2.AuditRow)
    assert interrupted.outcome == common_pb2.OUTCOME_INTERRUPTED


async def test_a_drain_ends_although_the_connection_fails_while_the_last_spool_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody but the end of the removal wakes it then."""
    removing, may_end, remove = threading.Event(), threading.Event(), Spool.remove

    def remove_late(spool: Spool) -> None:
        removing.set()
        may_end.wait(60)
        remove(spool)

    monkeypatch.setattr(Spool, "remove", remove_late)
    service = FakeAudit()
    for number, left in enumerate([open_spool(tmp_path) for _ in range(2)]):  # one of them is opened again as its own
        record(left, 10 * number, 3)
        left.close()
    with opened(tmp_path) as own:
        (other,) = Folders(tmp_path / "spool", SpoolOptions(counters=own.counters)).adopt(5)
        async with AsyncExitStack() as service_stack:
            target = await service_stack.enter_async_context(serving(service))
            async with sending(own, target) as sender:
                sender.adopt(other)
                draining = asyncio.create_task(sender.drain(30))
                assert await asyncio.to_thread(removing.wait, 30)
                await service_stack.aclose()
                async with asyncio.timeout(30):
                    while not own.counters.reconnects:
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0)  # the drain has looked again, and waits for the removal
                may_end.set()
                done, _ = await asyncio.wait({draining}, timeout=10)
                assert done, "the drain was not woken"
                assert draining.result()


async def test_numbers_that_a_spool_has_lost_are_not_covered(tmp_path: Path) -> None:
    """So that the ledger shows the hole."""
    service = FakeAudit()
    with opened(tmp_path) as spool:
        record(spool, 0, 20)
    (segment,) = segments_of(tmp_path)
    data = segment.read_bytes()
    at = data.index(b"call-7")
    segment.write_bytes(data[:at] + b"X" + data[at + 1 :])
    with opened(tmp_path) as spool:
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(20)
        assert service.covered[spool.id] == [(1, 7), (9, 20)]
    assert list(service.ledger) == [*names(0, 7), *names(8, 12)]


async def test_a_disk_that_cannot_be_read_does_not_end_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        read, failures = spool.read, 0

        def failing(max_rows: int, max_bytes: int) -> object:
            nonlocal failures
            failures += 1
            if failures <= 2:
                raise OSError(5, "Input/output error")
            return read(max_rows, max_bytes)

        monkeypatch.setattr(spool, "read", failing)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(20)
        assert len(service.ledger) == 10


async def levels_of_failures(failed: Callable[[], Awaitable[object]]) -> list[str]:
    with capture_logs() as logs:
        await failed()
    return [line["log_level"] for line in logs if line["event"] == "audit.sending_failed"]


async def test_a_connection_that_ends_by_its_age_is_no_warning(tmp_path: Path) -> None:
    service = FakeAudit()

    async def outlive_connections() -> None:
        options = [("grpc.max_connection_age_ms", 50), ("grpc.max_connection_age_grace_ms", 50)]
        with opened(tmp_path) as spool:
            async with serving(service, options=options) as target, sending(spool, target):
                for number in range(10_000):
                    record(spool, number, 1)
                    await service.until_stored(number + 1)
                    if spool.counters.reconnects >= 3:
                        return

    levels = await levels_of_failures(outlive_connections)
    assert levels[0] == "info"
    assert set(levels) <= {"info", "debug"}


@pytest.mark.long
async def test_a_restart_that_the_service_announced_is_no_warning_and_one_that_it_did_not_is(tmp_path: Path) -> None:
    def start(port: str) -> Service:
        return start_service("audit_svc", {"AUDIT_LISTEN": port, "AUDIT_DB": str(tmp_path / "audit.db")}, "serve")

    async def outlive_a_restart(end: Callable[[Service], object]) -> None:
        with own_port() as port, opened(tmp_path) as spool:
            first = await asyncio.to_thread(start, f"127.0.0.1:{port}")
            async with sending(spool, Target(first.address)) as sender:
                record(spool, 0, 1)
                assert await sender.drain(20)
                await asyncio.to_thread(end, first)
                first.__exit__(None, None, None)
                while sender.state != "failing":
                    record(spool, 1, 1)
                    await asyncio.sleep(0.01)
                with await asyncio.to_thread(start, first.address):
                    assert await sender.drain(20)

    assert set(await levels_of_failures(lambda: outlive_a_restart(lambda it: it.terminate()))) <= {"info", "debug"}
    assert "warning" in await levels_of_failures(lambda: outlive_a_restart(lambda it: it.kill()))
