"""A record adopts what dead processes left, however many they were."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from recording import record as record_module
from recording.following import follower
from recording.held_folder import HeldFolder
from recording.record import open_record
from recording.spool import Folders, Spool
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


async def test_a_look_at_a_folder_does_not_keep_it_from_being_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look locks it for a moment. Who drained then left its rows for the next process."""
    looked, adopt = threading.Event(), Folders.adopt

    def look_slowly(path: Path) -> bool:
        if (held := HeldFolder.hold(path)) is None:
            return False
        looked.set()
        time.sleep(0.02)
        held.close()
        return True

    def adopt_meanwhile(folders: Folders, limit: int, *, surely: bool) -> list[Spool]:
        looked.clear()
        looked.wait(0.2)
        return adopt(folders, limit, surely=surely)

    monkeypatch.setattr(record_module, "IDLE_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(follower, "is_free", look_slowly)
    monkeypatch.setattr(Folders, "adopt", adopt_meanwhile)
    dead = [open_spool(tmp_path) for _ in range(2)]
    for number, spool in enumerate(dead):
        assert spool.append(tool_call(number))
        spool.close()
    service = FakeAudit()
    async with serving(service) as target:
        record = open_record(tmp_path, target, witness_seconds=0)
        record.start()
        try:
            await asyncio.sleep(0)
            assert await record.drain(60)
            assert len(service.ledger) == 2
        finally:
            await record.aclose()
