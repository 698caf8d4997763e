"""The seal, and who verifies it, read in short moments: the WAL of the ledger can be emptied meanwhile."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from audit_svc.seal import compare, sealer, short_reads
from audit_svc.seal.leaf import BY_NAME, Kind
from audit_svc.seal.short_reads import leaves_in_parts
from audit_svc.sealing import process
from audit_svc.settings import AuditSettings
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.prune import Prune
from tests.audit_svc.samples import NOW_MS, audit_row
from tests.audit_svc.seal.conftest import rows

HOUR_MS = 3_600_000


def is_held(database: Path) -> bool:
    """Whether somebody keeps the WAL from being emptied."""
    with closing(apsw.Connection(str(database))) as other:
        try:
            other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return True
    return False


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch, database: Path) -> list[bool]:
    """Of each leaf that is hashed, whether the WAL was held meanwhile."""
    held: list[bool] = []

    def look(of: Any) -> None:
        hashed = of.leaf_hash

        def leaf_hash(said: bytes) -> bytes:
            held.append(is_held(database))
            return bytes(hashed(said))

        monkeypatch.setattr(of, "leaf_hash", leaf_hash)

    look(sealer)
    look(compare)
    return held


def test_no_moment_is_open_while_rows_are_hashed(seal, record, looked_at):
    record(**rows(40))
    size = seal.run()
    assert len(looked_at) == size
    report = seal.verify()
    assert report.rows == size
    assert not report.problems
    assert len(looked_at) == 2 * size
    assert not any(looked_at)


@pytest.mark.long
@pytest.mark.parametrize(("most", "seconds"), [(1, 60), (7, 60), (300, 60), (4096, 0)])
def test_parts_are_all_rows_in_their_order(seal, record, monkeypatch, most, seconds):
    monkeypatch.setattr(short_reads, "READ_ROWS", most)
    monkeypatch.setattr(short_reads, "READ_SECONDS", seconds)
    record(**rows(300))
    kind = BY_NAME["tool_call"]
    with closing(seal.place.open_ledger()) as ledger:
        for after, until, limit in [(0, None, None), (0, None, 150), (20, 33, None), (20, 290, 256), (300, None, None)]:
            wanted = list(ledger.leaves_after(kind, after, until, limit))
            assert list(leaves_in_parts(ledger, kind, after, until, limit)) == wanted


def test_rows_that_a_prune_removes_while_they_are_verified_are_no_damage(seal, record, writer, connection, monkeypatch):
    began = NOW_MS - 3 * 24 * 3600 * 1000
    record(tool_calls=[audit_row(created_at_ms=began) for _ in range(600)])
    seal.run()
    monkeypatch.setattr(short_reads, "READ_ROWS", 100)
    pruned: list[int] = []
    encode = Kind.encode

    def encode_and_prune(kind: Kind, row: Any) -> bytes:
        if not pruned:
            pruned.append(1)
            prune = Prune(NOW_MS // HOUR_MS * HOUR_MS - 2 * HOUR_MS, "ada", LedgerClock(connection))
            while not writer.run(prune.step).result().done:
                pass
        return encode(kind, row)

    monkeypatch.setattr(Kind, "encode", encode_and_prune)
    report = seal.verify()
    assert not report.problems
    assert report.removed > 0
    assert report.unsealed


@pytest.mark.long
async def test_a_sealer_that_stands_still_in_a_read_which_the_ledger_waits_for_is_killed_and_another_goes_on(
    seal, record, monkeypatch
):
    monkeypatch.setattr(process, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.05)
    in_the_way: set[int] = set()
    sealing = process.SealProcess(
        AuditSettings(db=str(seal.database), seal_dir=seal.folder, seal_seconds=0.05), held_up_by=lambda: in_the_way
    )

    async def until(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                await asyncio.sleep(0.02)

    async with sealing.running():
        await until(lambda: sealing._process and sealing._key)
        first = sealing._process
        assert first
        os.kill(first.pid, signal.SIGSTOP)
        record(**rows(40))
        in_the_way.add(first.pid)
        await asyncio.wait_for(first.wait(), 60)
        await until(sealing.why_troubled)
        assert "stood still in a read" in sealing.why_troubled()
        await until(lambda: sealing._leaves > 0 and not sealing.why_troubled())
    assert not seal.verify().unsealed
