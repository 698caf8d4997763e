"""A record adopts what dead processes left, however many they were."""

import asyncio
from pathlib import Path

import pytest

from recording import record as record_module
from recording.record import open_record
from tests.recording.fake_audit import FakeAudit, serving
from tests.recording.samples import open_spool, tool_call


@pytest.mark.long
async def test_folders_beyond_the_bound_are_adopted_as_soon_as_others_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next look, by which two folders a second were sent."""
    monkeypatch.setattr(record_module, "_LOOK_SECONDS", 3600)
    dead = [open_spool(tmp_path) for _ in range(14)]
    for number, spool in enumerate(dead):
        assert spool.append(tool_call(number))
        spool.close()
    service = FakeAudit()
    async with serving(service) as target:
        record = open_record(tmp_path, target, witness_seconds=0)
        record.start()
        try:
            async with asyncio.timeout(60):
                while len(service.ledger) < len(dead) or len(list((tmp_path / "spool").glob("*-*"))) > 1:
                    await asyncio.sleep(0.01)
        finally:
            await record.aclose()
