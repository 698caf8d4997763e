"""The sender against a real gRPC server: rows get there in order, from its own spool and from adopted ones."""

import asyncio
import itertools
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.servicer import STREAM_BATCHES
from recording.delivery.sender import MAX_IN_FLIGHT, MAX_ROWS
from recording.spool import Folders, Spool, SpoolOptions
from tests.recording.fake_audit import FakeAudit, refusing, rows_of, serving
from tests.recording.samples import crash, intent, open_spool, opened, segments_of, tool_call
from tests.recording.sending import names, record, sending


async def test_rows_reach_the_ledger_in_order_and_their_numbers_are_covered(tmp_path: Path) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool:
        record(spool, 0, 1234)
        async with serving(service) as target, sending(spool, target) as sender:
            spool.append(audit_pb2.CostRow(id="cost"))
            spool.append_intent(intent(2000))
            spool.append(audit_pb2.SessionRow(id="session"))
            assert await sender.drain(60)
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
            assert await sender.drain(60)
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


async def test_no_more_full_batches_are_under_way_than_the_ledger_reads_ahead(tmp_path: Path) -> None:
    assert MAX_IN_FLIGHT == STREAM_BATCHES
    service = FakeAudit()
    gate = service.hold()
    with opened(tmp_path) as spool:
        record(spool, 0, (MAX_IN_FLIGHT + 4) * MAX_ROWS)
        async with serving(service) as target, sending(spool, target) as sender:
            await service.until(lambda: len(service.requests) == MAX_IN_FLIGHT)
            await asyncio.sleep(0.1)
            assert len(service.requests) == MAX_IN_FLIGHT
            gate.set()
            assert await sender.drain(60)


async def test_what_comes_while_a_batch_is_under_way_goes_together(tmp_path: Path) -> None:
    """Batches grow with the load by themselves."""
    service = FakeAudit()
    gate = service.hold()
    with opened(tmp_path) as spool:
        async with serving(service) as target, sending(spool, target) as sender:
            record(spool, 0, 1)
            await service.until(lambda: service.requests)
            for number in range(1, 100):
                record(spool, number, 1)
                await asyncio.sleep(0)
            gate.set()
            assert await sender.drain(60)
        assert [len(request.tool_calls) for request in service.requests] == [1, 99]


@pytest.mark.long
async def test_what_comes_soon_after_a_batch_goes_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each is acked at once. What makes a batch full does not wait."""
    monkeypatch.setattr("recording.delivery.sender.GATHER_SECONDS", 2.0)
    service = FakeAudit()
    with opened(tmp_path) as spool:
        async with serving(service) as target, sending(spool, target) as sender:
            record(spool, 0, 1)
            await service.until_stored(1)
            for number in range(1, 100):
                record(spool, number, 1)
                await asyncio.sleep(0)
            assert await sender.drain(60)
            record(spool, 100, 2 * MAX_ROWS)
            assert await sender.drain(60)
        assert [len(request.tool_calls) for request in service.requests] == [1, 99, MAX_ROWS, MAX_ROWS]


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
            assert await sender.drain(60)
    assert list(service.ledger) == names(0, 10)


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
            assert await sender.drain(60)
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
            assert await sender.drain(60)
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
                done, _ = await asyncio.wait({draining}, timeout=60)
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
            assert await sender.drain(60)
        assert service.covered[spool.id] == [(1, 7), (9, 20)]
    assert list(service.ledger) == [*names(0, 7), *names(8, 12)]


async def test_a_drain_ends_when_an_adopted_spool_is_taken_away_that_has_nothing_left(tmp_path: Path) -> None:
    """No row of it comes to its new home, whose listener would wake the sender."""
    service = FakeAudit()
    with opened(tmp_path / "left") as left:
        record(left, 0, 3)
        async with serving(service) as target, sending(left, target) as sender:
            assert await sender.drain(30)
    with opened(tmp_path / "own") as own:
        (other,) = Folders(tmp_path / "left" / "spool", SpoolOptions()).adopt(1)
        for segment in (tmp_path / "left" / "spool" / other.id).glob("*.segment"):
            segment.unlink()
        async with serving(service) as target, sending(own, target) as sender:
            sender.adopt(other)
            assert not await sender.drain(0.5), "it waits until somebody has looked where the folder is"
            draining = asyncio.create_task(sender.drain(30))
            await asyncio.sleep(0)
            await asyncio.to_thread(other.move_to, own)
            assert await draining
            assert sender.adopted == 0
