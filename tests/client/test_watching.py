"""The program that sends for applications watches their ledger, and a strict application hears of it by a file."""

from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.client import AsyncLedger

from recording.kept.folder import list_kept
from recording.logger import AuditRefused
from recording.producing.courier import SenderProgram
from recording.witness.doubts import Doubts
from tests.client.test_producers import folders, holds
from tests.recording.fake_audit import serving
from tests.recording.witness.fake_log import FakeLog


@pytest.mark.long
async def test_a_ledger_that_forgot_gets_back_what_applications_sent_and_a_strict_one_refuses(tmp_path: Path) -> None:
    state_dir, audit = tmp_path / "state", FakeLog()
    doubts = Doubts(state_dir)
    async with serving(audit, more=[audit.proof_service()]) as target:

        async def calls(mode: str) -> bool:
            """Three calls of a process of its own folder; whether it could record them, all of which were sent."""
            async with AsyncLedger(state_dir, target.address, mode=mode, drain_seconds=20) as ledger:  # type: ignore[arg-type]
                try:
                    for number in range(3):
                        with ledger.tool_call("bash", {"n": number}):
                            pass
                except AuditRefused:
                    return False
            return True

        async def ended() -> None:
            """Waits until the program has ended, which sends what is left and looks at its beginning."""
            await holds(lambda: not folders(state_dir))
            await holds(lambda: not SenderProgram(state_dir / "spool", None).is_running())

        assert await calls("strict")
        await holds(lambda: (state_dir / "witness/view.json").exists())
        await ended()
        assert len(audit.ledger) == 3
        assert list_kept(state_dir / "spool")
        gone = set(audit.ledger)
        audit.forget(*gone)
        audit.leaves = []
        assert await calls("best_effort")
        await holds(doubts.is_doubted)
        await holds(lambda: len(audit.ledger) == 6)
        assert set(audit.ledger) >= gone
        assert not await calls("strict")
        doubted = {audit_pb2.CONTROL_KIND_LEDGER_DOUBTED}
        await holds(lambda: {row.kind for row in audit.controls} == doubted)
        await ended()
        audit.accept("a broken disk")
        assert await calls("best_effort")
        await holds(lambda: not doubts.is_doubted())
        assert await calls("strict")
