"""Going on with a conversation: across gateways, after another engine's turns, and when the program has lost it."""

import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.engines.claude.memory import MAX_RETOLD_CHARACTERS, Known, Memory, as_text
from gateway_svc.engines.claude.prompt import ANSWER
from gateway_svc.errors import EngineProtocolError
from gateway_svc.messages import AssistantMessage, ToolMessage, UserMessage
from recording.calls import ToolCall
from tests.support.claude_cli import MODEL, SESSION, Line, init, lost_session, message, result, spent

OTHER = "7f57f751-4625-4d53-a6e8-e6c533362d7c"


def answer(text: str, session_id: str = SESSION) -> list[Line]:
    end = {**result({MODEL: spent(1, 0.00054)}), "session_id": session_id}
    return [init(session_id), *message("msg_1", text), end]


async def test_the_next_turn_goes_on_with_the_program_s_session_in_another_gateway(stage):
    stage.play(answer("one"))
    stage.play(answer("two", OTHER))
    await stage.run("first")
    assert not any(argument.startswith("--resume") for argument in stage.argv())
    await stage.run("second", runner=stage.runner())
    assert f"--resume={SESSION}" in stage.argv()
    assert stage.told() == ["second", ANSWER]
    await stage.run("third", runner=stage.runner())
    assert f"--resume={OTHER}" in stage.argv()


async def test_what_another_engine_did_in_between_is_told(stage):
    stage.play(answer("one"))
    await stage.run("first")
    call = ToolCall("id", "call_1", "bash", "{}")
    stage.history += [UserMessage("and then"), AssistantMessage("", "", (call,)), ToolMessage("call_1", "bash", "big")]
    stage.history.append(AssistantMessage("it was so"))
    await stage.run("second")
    before, prompt, _ = stage.told()
    assert prompt == "second"
    assert before.endswith("User: and then\n\nAssistant:  [used bash]\n\nAssistant: it was so")
    assert "first" not in before


async def test_a_session_that_the_program_has_lost_is_told_again(stage):
    """It goes on with a fresh one that is given the conversation, and that one is kept."""
    stage.play(answer("one"))
    await stage.run("first")
    stage.play([lost_session()], exit=1)
    stage.play(answer("two", OTHER))
    assert await stage.run("second") == "STOP_REASON_COMPLETED"
    assert not any(argument.startswith("--resume") for argument in stage.argv())
    before, prompt, _ = stage.told()
    assert "User: first\n\nAssistant: one" in before
    assert prompt == "second"
    assert [said.text for said in stage.history] == ["first", "one", "second", "two"]
    assert stage.totals.requests == 1
    await stage.run("third")
    assert f"--resume={OTHER}" in stage.argv()


async def test_a_program_that_tells_of_a_lost_session_on_stderr_alone(stage):
    stage.play(answer("one"))
    await stage.run("first")
    said = f"No conversation found with session ID: {SESSION}"
    stage.play([{"do": "stderr", "text": said}, {"do": "exit", "code": 1}])
    stage.play(answer("two", OTHER))
    assert await stage.run("second") == "STOP_REASON_COMPLETED"


async def test_the_session_is_known_from_its_first_line_on(stage):
    """So that the next turn goes on with it even when the gateway is killed in this one."""
    stage.play([init(), {"do": "wait"}], on_interrupt=[])
    turn = stage.turn()
    task = await stage.start(turn, stage.runner())
    path = stage.folder / "state" / "claude" / "session-1.json"
    await stage.until(path.exists)
    assert json.loads(path.read_text()) == {"claude_session_id": SESSION, "messages": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    task.cancel()
    await stage.until(task.done)


async def test_a_program_that_never_began_leaves_nothing_to_go_on_with(stage):
    stage.play([{"do": "exit", "code": 1}])
    stage.play(answer("one"))
    with pytest.raises(EngineProtocolError, match="before it said anything"):
        await stage.run("first")
    await stage.run("second")
    assert stage.told()[0].endswith("User: first")


def test_a_file_that_cannot_be_read_counts_as_none(tmp_path):
    memory = Memory(tmp_path / "claude")
    memory.write("session-1", Known(SESSION, 3))
    assert memory.read("session-1") == Known(SESSION, 3)
    for content in ("", "{", "[]", '{"claude_session_id": "x", "more": 1}'):
        (tmp_path / "claude" / "session-1.json").write_text(content)
        assert memory.read("session-1") == Known()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    memory = Memory(tmp_path / "claude")
    (tmp_path / "claude" / "session-1.draft").mkdir()
    memory.write("session-1", Known(SESSION, 3))
    assert memory.read("session-1") == Known()


@pytest.mark.long
@given(st.lists(st.builds(UserMessage, st.text(max_size=60_000)), max_size=5))
def test_what_is_told_again_is_bounded_and_ends_with_the_newest(messages):
    told = as_text(messages)
    assert len(told) <= MAX_RETOLD_CHARACTERS + 200
    if messages and len(messages[-1].text) < MAX_RETOLD_CHARACTERS - 10:
        assert told.endswith(f"User: {messages[-1].text}")
