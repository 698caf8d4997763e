"""Claude's own program, with a scripted model behind it: what the other tests assume of its lines holds."""

import asyncio
import shutil

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.errors import EngineRejected
from gateway_svc.messages import AssistantMessage, ToolMessage
from tests.engines_claude.real import COMMAND, marks, runner
from tests.support.claude_cli import tool_use

pytestmark = marks


async def test_a_turn_with_tools_and_the_next_that_goes_on_with_it(stage, model):
    (stage.workspace / "a.txt").write_text("hello\n")
    calls = [
        tool_use("toolu_1", "Read", {"file_path": str(stage.workspace / "a.txt")}),
        tool_use("toolu_2", "Bash", {"command": "exit 3"}),
        tool_use("toolu_3", "Bash", {"command": "touch /tmp/x; id"}),
        tool_use("toolu_4", "NoSuchTool", {}),
    ]
    with model({"text": "Looking", "tools": calls}, {"text": "Done"}, {"text": "Again"}) as api:
        assert await stage.run("do it", runner=runner(stage), system_prompt="Be brief.") == "STOP_REASON_COMPLETED"
        assert "Be brief." in str(api.requests[0]["system"])
        assert stage.text() == "LookingDone"
        rows = {row.provider_call_id: row for row in stage.ledger.calls}
        assert [common_pb2.Outcome.Name(rows[call["id"]].outcome)[8:] for call in calls] == [
            *("SUCCEEDED", "SUCCEEDED", "DENIED", "INVALID_CALL")
        ]
        assert rows["toolu_2"].exit_code == 3
        assert [type(said) for said in stage.history[1:]] == [AssistantMessage, *[ToolMessage] * 4, AssistantMessage]
        first = stage.totals
        assert (first.requests, first.input_tokens, first.output_tokens) == (2, 46, 46)

        await stage.run("and now", runner=runner(stage))
        assert stage.text() == "Again"
        assert len(api.requests[2]["messages"]) > len(api.requests[1]["messages"])
    assert (stage.totals.requests, stage.totals.input_tokens) == (1, 23)
    assert stage.totals.known_cost_micros * 2 == first.known_cost_micros > 0


async def test_a_cancelled_command_ends_and_the_cost_is_known(stage, model):
    started = stage.workspace / "started"
    call = tool_use("toolu_1", "Bash", {"command": f"sleep 0.1; touch {started}; sleep 60"})
    with model({"tools": [call]}) as api:
        started_turn = stage.turn("wait")
        settings = {"allowed_tools": ["Bash"], "command": COMMAND}
        task = asyncio.create_task(stage.runner(**settings).run(started_turn))
        await stage.until(started.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(api.requests) == 1
    assert [row.outcome for row in stage.ledger.calls] == [common_pb2.OUTCOME_CANCELLED]
    assert [row.cost_micros > 0 for row in stage.ledger.costs] == [True]


async def test_an_answer_that_is_cancelled_counts_what_came(stage, model):
    with model({"text": "one two three four five six", "pause": 0.3}):
        turn = stage.turn()
        task = asyncio.create_task(runner(stage).run(turn))
        await stage.first_event(turn)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (row,) = stage.ledger.costs
    assert (row.input_tokens, row.usage_incomplete, row.error) == (23, True, "cancelled")


async def test_a_session_that_it_has_lost_is_told_again(stage, model, home):
    with model({"text": "one"}) as api:
        await stage.run("first", runner=runner(stage))
        shutil.rmtree(home / ".claude")
        assert await stage.run("second", runner=runner(stage)) == "STOP_REASON_COMPLETED"
        assert "User: first" in str(api.requests[-1]["messages"])


async def test_without_a_login_it_says_what_to_do(stage, home):
    with pytest.raises(EngineRejected, match="not logged in"):
        await stage.run(runner=runner(stage))


async def test_its_own_limit_of_steps_is_a_stop_reason(stage, model):
    call = tool_use("toolu_1", "Bash", {"command": "exit 3"})
    with model({"tools": [call]}):
        limited = stage.runner(command=COMMAND, allowed_tools=["Bash"], max_steps=1)
        assert await stage.run(runner=limited) == "STOP_REASON_MAX_STEPS"
    assert stage.totals.requests == 1


async def test_a_stream_that_breaks_off_loses_nothing(stage, model):
    """The program asks again, unstreamed, and tells the new answer as a whole."""
    with model({"text": "one two three four five six", "cut": 5}, {"text": "one two three four five six"}) as api:
        assert await stage.run(runner=runner(stage)) == "STOP_REASON_COMPLETED"
        assert [request.get("stream", False) for request in api.requests] == [True, False]
    assert stage.text() == stage.history[-1].text == "one two three four five six"


async def test_a_call_that_a_stream_broke_off_is_none(stage, model):
    call = tool_use("toolu_1", "Bash", {"command": "exit 3"})
    with model({"tools": [call], "cut": 3}, {"text": "Done"}):
        assert await stage.run(runner=runner(stage)) == "STOP_REASON_COMPLETED"
    assert stage.ledger.calls == []


async def test_a_server_that_a_tool_left_running_does_not_hold_the_turn(stage, model):
    call = tool_use("toolu_1", "Bash", {"command": "sleep 600", "run_in_background": True})
    with model({"tools": [call]}, {"text": "It runs."}):
        settings = {"command": COMMAND, "allowed_tools": ["Bash"], "max_turn_seconds": 600.0}
        assert await stage.run(runner=stage.runner(**settings)) == "STOP_REASON_COMPLETED"
    assert stage.text() == "It runs."


async def test_a_call_whose_input_is_no_object_is_malformed(stage, model):
    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": "text"}
    with model({"tools": [call, tool_use("toolu_2", "Bash", {"command": "exit 3"})]}, {"text": "Done"}):
        assert await stage.run(runner=runner(stage)) == "STOP_REASON_COMPLETED"
    rows = {row.provider_call_id: row for row in stage.ledger.calls}
    assert rows["toolu_1"].outcome == common_pb2.OUTCOME_INVALID_CALL
    assert rows["toolu_2"].exit_code == 3
