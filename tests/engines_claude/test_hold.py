"""No tool of Claude's program runs before its intent is on the record, and synced where that is promised."""

import asyncio
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.messages import AssistantMessage
from recording.logger import AuditRefused
from tests.engines_claude.real import COMMAND, marks
from tests.engines_claude.stage import Ledger, Stage
from tests.support.claude_cli import BASH_DONE, MODEL, Line, init, message, result, spent, tool_result, tool_use

CALL = tool_use("toolu_1", "Bash", {"command": "touch ran"})
ASK = {"do": "ask", "call": CALL}


def play(stage: Stage, *before_the_result: Line) -> None:
    done = [tool_result("toolu_1", "", detail=BASH_DONE), *message("msg_2", "Done")]
    stage.play([init(), *before_the_result, *done, result({MODEL: spent(2, 0.001)})])


class SlowDisk(Ledger):
    """Syncs when it is let, and may refuse."""

    def __init__(self, refusal: str = "") -> None:
        super().__init__()
        self.free, self.waits, self.refusal = asyncio.Event(), asyncio.Event(), refusal

    async def synced(self) -> None:
        assert [row.provider_call_id for row in self.intents] == ["toolu_1"]
        self.waits.set()
        await self.free.wait()
        if self.refusal:
            raise AuditRefused(self.refusal)


async def test_a_tool_waits_for_the_sync_of_its_intent(stage: Stage) -> None:
    stage.ledger = disk = SlowDisk()
    play(stage, *message("msg_1", tools=[CALL]), ASK)
    running = asyncio.create_task(stage.run())
    await disk.waits.wait()
    assert stage.journal("answered") == []
    disk.free.set()
    assert await running == "STOP_REASON_COMPLETED"
    assert stage.journal("answered") == [{}]
    assert [row.outcome for row in disk.calls] == [common_pb2.OUTCOME_SUCCEEDED]


async def test_a_call_that_is_asked_for_before_it_is_shown_is_one_call(stage: Stage) -> None:
    play(stage, ASK, *message("msg_1", tools=[CALL]))
    await stage.run()
    assert len(stage.ledger.intents) == len(stage.ledger.calls) == 1
    said = stage.history[1]
    assert isinstance(said, AssistantMessage)
    assert [call.provider_call_id for call in said.tool_calls] == ["toolu_1"]


async def test_in_strict_a_tool_whose_intent_cannot_be_recorded_is_denied(stage: Stage) -> None:
    class Full(Ledger):
        def intend(self, row: audit_pb2.AuditRow) -> None:
            raise AuditRefused("the spool is full")

    stage.ledger = Full()
    refused = tool_result("toolu_1", "the spool is full", error=True)
    stage.play([init(), *message("msg_1", tools=[CALL]), ASK, refused, result({MODEL: spent(1, 0.001)})])
    await stage.run()
    [answered] = stage.journal("answered")
    decision: dict[str, Any] = answered["hookSpecificOutput"]
    assert (decision["permissionDecision"], decision["permissionDecisionReason"]) == ("deny", "the spool is full")
    assert [row.outcome for row in stage.ledger.calls] == [common_pb2.OUTCOME_DENIED]


@marks[0]
@marks[1]
@pytest.mark.parametrize("refusal", ["", "the disk failed"])
async def test_claudes_own_program_waits_and_obeys(stage, model, refusal):
    stage.ledger = disk = SlowDisk(refusal)
    ran = stage.workspace / "ran"
    with model({"tools": [CALL]}, {"text": "Done"}):
        running = asyncio.create_task(stage.run(runner=stage.runner(command=COMMAND, allowed_tools=["Bash"])))
        await disk.waits.wait()
        await asyncio.sleep(0.5)
        assert not ran.exists()
        disk.free.set()
        assert await running == "STOP_REASON_COMPLETED"
    assert ran.exists() is not bool(refusal)
    expected = common_pb2.OUTCOME_DENIED if refusal else common_pb2.OUTCOME_SUCCEEDED
    assert [row.outcome for row in disk.calls] == [expected]
