"""Claude's engine among the others, in a gateway's sessions."""

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.history import closing_messages
from gateway_svc.messages import AssistantMessage, ToolMessage
from gateway_svc.servicer import status_of
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.requests import Requests
from tests.support.claude_cli import MODEL, SESSION, init, message, result, spent, tool_result, tool_use
from tests.support.conversations import open_sessions

BASH = tool_use("toolu_1", "Bash", {"command": "sleep 9"})
ANSWER = [init(), *message("msg_2", "All is well"), result({MODEL: spent(1, 0.00054)})]


@pytest.fixture
def sessions(stage):
    return open_sessions(stage.folder / "state")


@pytest.fixture
def turns(stage, sessions):
    return Turns(
        sessions, {"claude": stage.runner()}, "claude", lambda row: None, status_of, Requests(stage.folder / "state")
    )


async def test_a_session_goes_on_after_a_cancelled_turn(stage, sessions, turns):
    """By its transcript every engine could go on with it; Claude's program does by its own session."""
    stage.play(
        [init(), *message("msg_1", "Looking", [BASH]), {"do": "wait"}],
        on_interrupt=[tool_result("toolu_1", "stopped", error=True), result({MODEL: spent(1, 0.00054)}, error=True)],
    )
    stage.play(ANSWER)
    events = []
    async for event in turns.run(pb.RunTurnRequest(input="first")):
        events.append(event)
        if event.HasField("tool_call_started"):
            turns.cancel(pb.CancelTurnRequest(turn_id=events[0].turn_accepted.turn_id))
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    assert events[-1].turn_finished.usage.known_cost_micros == 540

    session_id = events[0].turn_accepted.session_id
    events = [event async for event in turns.run(pb.RunTurnRequest(session_id=session_id, input="second"))]
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert f"--resume={SESSION}" in stage.argv()
    async with sessions.hold(session_id) as session:
        _, asked, told, *_, answer = session.history
        assert closing_messages(session.history, "") == []
    assert asked.tool_calls[0].provider_call_id == "toolu_1"
    assert told == ToolMessage("toolu_1", "Bash", "The call was cancelled.")
    assert answer == AssistantMessage("All is well")
