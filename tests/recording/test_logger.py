"""The record as a gateway builds it: modes, start, drain, restart, adoption, memory."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2

from demo.processes import REPOSITORY
from recording.delivery.connection import Target
from recording.logger import AuditRefused, safe_audit, safe_intend
from recording.producing.spool_logger import Mode
from recording.record import Record, open_record
from recording.spool import SpoolClosed
from tests.recording.fake_audit import FakeAudit, serving
from tests.recording.samples import intent, open_spool, tool_call

NOWHERE = Target("127.0.0.1:1")


def filled(state_dir: Path, mode: Mode) -> Record:
    """A record whose spool takes no row of this size any more."""
    record = open_record(state_dir, NOWHERE, mode=mode, max_bytes=2**20)
    number = 0
    while not record.counters.dropped:
        record.logger.record(tool_call(number := number + 1, args_summary="x" * 5000))
    return record


async def test_rows_go_through_the_logger_into_the_ledger(tmp_path: Path) -> None:
    service = FakeAudit()
    async with serving(service) as target:
        record = open_record(tmp_path, target)
        record.logger.intend(intent(1))
        record.logger.record(tool_call(1))
        record.start()
        record.logger.record(audit_pb2.CostRow(id="cost"))
        assert await record.drain(60)
        await record.aclose()
    assert list(service.ledger) == ["call-1", "cost"]


async def test_what_a_start_finds_is_sent_without_anything_new(tmp_path: Path) -> None:
    for number in range(3):
        spools = [open_spool(tmp_path / "state") for _ in range(number + 1)]
        for offset, spool in enumerate(spools):
            spool.append(tool_call(10 * number + offset))
        for spool in spools:
            spool.close()
    service = FakeAudit()
    async with serving(service) as target:
        record = open_record(tmp_path / "state", target)
        record.start()
        await service.until_stored(6)
        assert await record.drain(60)
        await record.aclose()
    assert record.counters.adopted == 2
    assert len(list((tmp_path / "state" / "spool").glob("*-*"))) == 1


@pytest.mark.long
async def test_recording_after_the_end_raises_and_hurts_nobody(tmp_path: Path) -> None:
    record = open_record(tmp_path, NOWHERE)
    record.start()
    await record.aclose()
    with pytest.raises(SpoolClosed):
        record.logger.record(tool_call(1))
    safe_audit(record.logger, tool_call(1))
    assert safe_intend(record.logger, intent(1)) is None


async def test_best_effort_lets_tools_run_when_the_spool_is_full(tmp_path: Path) -> None:
    record = filled(tmp_path, "best_effort")
    dropped = record.counters.dropped
    record.logger.intend(tool_call(1000, args_summary="x" * 5000))
    record.logger.record(tool_call(1000, args_summary="x" * 5000))
    assert record.counters.dropped == dropped + 1
    await record.aclose()


async def test_strict_refuses_a_tool_when_the_spool_is_full_with_a_sentence_for_the_model(tmp_path: Path) -> None:
    record = filled(tmp_path, "strict")
    with pytest.raises(AuditRefused, match="tool was not run"):
        record.logger.intend(tool_call(1000, args_summary="x" * 5000))
    refusal = safe_intend(record.logger, tool_call(1000, args_summary="x" * 5000))
    assert refusal is not None
    await record.aclose()


async def test_strict_refuses_a_tool_while_the_disk_does_not_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_record(tmp_path, NOWHERE, mode="strict", sync_interval_ms=1)
    record.logger.intend(intent(1))
    monkeypatch.setattr(record.spool, "sync_failed", True)
    with pytest.raises(AuditRefused):
        record.logger.intend(intent(2))
    await record.aclose()


async def test_two_records_share_a_state_directory(tmp_path: Path) -> None:
    service = FakeAudit()
    async with serving(service) as target:
        records = [open_record(tmp_path, target) for _ in range(3)]
        for number, record in enumerate(records):
            record.start()
            record.logger.record(tool_call(number))
        for record in records:
            assert await record.drain(60)
        await asyncio.gather(*(record.aclose() for record in records))
    assert len(service.ledger) == len(service.covered) == 3


MANY = 300_000

PROGRAM = f"""
import asyncio, sys
from pathlib import Path
from recording.delivery.connection import Target
from recording.record import open_record
from tests.recording.fake_audit import FakeAudit, serving
from tests.recording.samples import tool_call

def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

class Forgetful(FakeAudit):
    async def _note_request(self, request):
        return None
    async def store(self, request, context):
        self.ledger["count"] = self.ledger.get("count", 0) + len(request.tool_calls)
        return type(await FakeAudit().store(type(request)(), context))(range=request.range)

async def main():
    record = open_record(Path(sys.argv[1]), Target("127.0.0.1:1"))
    for number in range({MANY}):
        record.logger.record(tool_call(number))
    await record.aclose()
    service = Forgetful()
    service.behave = service.store
    async with serving(service) as target:
        record = open_record(Path(sys.argv[1]), target)
        before = peak = memory()
        record.start()
        draining = asyncio.create_task(record.drain(50))
        while not draining.done():
            peak = max(peak, memory())
            await asyncio.sleep(0.01)
        assert await draining
        assert service.ledger["count"] == {MANY}
        await record.aclose()
    print(peak - before)

asyncio.run(main())
"""


@pytest.mark.long
def test_memory_does_not_grow_with_what_lies_in_the_spool(tmp_path: Path) -> None:
    """The service's side is in the figure too; a queue of these rows in memory would take over 100 MB."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'protos'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 50_000_000
