"""The record while its disk is slow, or its folder is taken away: nobody else waits, and nothing is lost in silence."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import recording.record
from recording.delivery.connection import Target
from recording.logger import AuditRefused, safe_synced
from recording.record import open_record
from tests.recording.fake_audit import FakeAudit, serving
from tests.recording.samples import intent, tool_call
from tests.support.ports import own_port

NOWHERE = Target("127.0.0.1:1")


class SlowDisk:
    """A disk that syncs only when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        self.fails = False
        self.syncs = 0
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            self.syncs += 1
            self.free.wait()
            if self.fails:
                raise OSError(5, "Input/output error")
            real(fd)

        monkeypatch.setattr(os, "fdatasync", fdatasync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.free.set()


async def test_who_waits_for_a_slow_disk_holds_up_nobody_else(tmp_path: Path, disk: SlowDisk) -> None:
    record = open_record(tmp_path, NOWHERE, sync="always", sync_interval_ms=10**9)
    disk.free.clear()
    record.logger.intend(intent(1))
    waiting = [asyncio.create_task(record.logger.synced()) for _ in range(50)]
    while not disk.syncs:
        await asyncio.sleep(0.001)
    record.logger.record(tool_call(2))
    late = asyncio.create_task(record.logger.synced())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in [*waiting, late])
    disk.free.set()
    await asyncio.gather(*waiting, late)
    assert disk.syncs == 2, "all that wait share a sync; what came meanwhile needs another"
    await record.logger.synced()
    assert disk.syncs == 2, "nothing new: no sync"
    await record.aclose()


async def test_nobody_waits_for_the_disk_where_syncs_have_an_interval(tmp_path: Path, disk: SlowDisk) -> None:
    record = open_record(tmp_path, NOWHERE, sync_interval_ms=1)
    disk.free.clear()
    record.logger.intend(intent(1))
    await record.logger.synced()
    disk.free.set()
    await record.aclose()


async def test_strict_refuses_a_tool_whose_intent_did_not_reach_the_disk(tmp_path: Path, disk: SlowDisk) -> None:
    record = open_record(tmp_path, NOWHERE, mode="strict", sync="always", sync_interval_ms=10**9)
    disk.fails = True
    record.logger.intend(intent(1))
    with pytest.raises(AuditRefused, match="tool was not run"):
        await record.logger.synced()
    record.logger.record(tool_call(1))
    assert await safe_synced(record.logger)
    disk.fails = False
    record.logger.record(tool_call(2))
    assert await safe_synced(record.logger) is None
    await record.aclose()


async def test_a_sync_that_takes_seconds_is_told(
    tmp_path: Path, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording.record, "SLOW_SYNC_SECONDS", 0.0)
    for sync, told in (("always", True), ("interval", False)):
        options: dict[str, Any] = {"sync": sync}
        record = open_record(tmp_path, NOWHERE, **options)
        disk.free.clear()
        record.logger.record(tool_call(1))
        while not record.spool.sync_seconds():
            await asyncio.sleep(0.001)
        assert ("syncing for" in record.trouble()) == told, "who waits for no sync records as promised"
        assert "syncing for" in record.detail()
        disk.free.set()
        while record.spool.sync_seconds():
            await asyncio.sleep(0.001)
        assert record.trouble() == record.detail() == ""
        await record.aclose()


@pytest.mark.parametrize("whole", [False, True], ids=["its folder", "the folder of all spools"])
async def test_a_record_whose_folder_is_removed_goes_on_and_says_so(tmp_path: Path, whole: bool) -> None:
    service = FakeAudit()
    async with serving(service) as target:
        record = open_record(tmp_path, target)
        first = record.spool
        record.logger.intend(intent(0))
        record.logger.record(tool_call(1))
        shutil.rmtree(first.root if whole else first.root / first.id)
        record.start()
        number = 1
        while record.spool is first:
            record.logger.record(tool_call(number := number + 1))
            await asyncio.sleep(0.01)
        record.logger.record(tool_call(0))
        assert await record.drain(30)
        assert set(service.ledger) == {f"call-{each}" for each in range(number + 1)}
        assert "taken away" in record.detail()
        assert record.counters.lost == 0
        await record.aclose()


@pytest.mark.parametrize("noticed_by", ["who sends", "who looks"])
async def test_an_adopted_folder_that_is_removed_is_told_by_a_gap_row(tmp_path: Path, noticed_by: str) -> None:
    """Its rows were somebody's: what cannot be read any more is on the record of who was to send it."""
    service = FakeAudit()
    async with serving(service) as target:
        record = open_record(tmp_path, target)
        left = open_record(tmp_path, NOWHERE)
        left.logger.record(tool_call(1))
        await left.aclose()
        (adopted,) = await asyncio.to_thread(record._folders.adopt, 1)
        record._sender.adopt(adopted)
        shutil.rmtree(adopted.root / adopted.id)
        if noticed_by == "who sends":
            while adopted.read(1, 2**20) is not None:
                pass
            assert not adopted.is_read_out(), "it would be taken for one that was sent"
        else:
            await record._leave_what_is_gone()
        record.start()
        while not service.ledger:
            await asyncio.sleep(0.01)
        (row,) = service.ledger.values()
        assert str(getattr(row, "error", "")).startswith("1 tool calls")
        await record.aclose()


@pytest.mark.long
async def test_where_no_other_folder_can_be_made_health_says_so_until_one_can(tmp_path: Path) -> None:
    record = open_record(tmp_path / "state", NOWHERE)
    first = record.spool
    record.logger.record(tool_call(1))
    shutil.rmtree(first.root)
    first.root.write_text("a file in its place")
    record.start()
    while not record.trouble():
        await asyncio.sleep(0.01)
    record.logger.record(tool_call(2))
    first.root.unlink()
    while record.trouble():
        await asyncio.sleep(0.01)
    assert record.spool is not first
    assert record.spool.depth == 2, "the sender may just have read them, and nobody has acked them"
    await record.aclose()


async def test_what_waits_for_a_ledger_that_does_not_answer_is_told_until_it_has_it(tmp_path: Path) -> None:
    with own_port() as port:
        record = open_record(tmp_path, Target(f"127.0.0.1:{port}"))
        record.start()
        assert record.detail() == ""
        record.logger.record(tool_call(1))
        record.logger.record(tool_call(2))
        async with asyncio.timeout(30):
            while record.detail() != "2 records wait in the spool: the ledger does not answer":
                await asyncio.sleep(0.01)
        assert record.trouble() == ""
        async with serving(FakeAudit(), port):
            assert await record.drain(30)
            assert record.detail() == ""
        await record.aclose()
