"""A turn on Claude's program: what the client hears, what the history keeps, what the program is given."""

import os

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude import prompt
from gateway_svc.errors import InvalidRequest
from gateway_svc.messages import AssistantMessage, ToolMessage, UserMessage
from gateway_svc.turns.budgets import Budget
from recording.calls import ToolCall
from tests.support.claude_cli import (
    BASH_DONE,
    MODEL,
    SESSION,
    assistant,
    event,
    init,
    message,
    requesting,
    result,
    spent,
    tool_result,
    tool_use,
)

ANSWER = [init(), *message("msg_1", "All is well"), result({MODEL: spent(1, 0.00054)})]
READ = tool_use("toolu_1", "Read", {"file_path": "/w/a.txt"})
BASH = tool_use("toolu_2", "Bash", {"command": "true"})


async def test_the_answer_streams_in_pieces_and_is_kept_whole(stage):
    """A client sees each piece once, though the program writes the text twice: in pieces, and as a block."""
    stage.play(
        [init(), requesting(), *message("msg_1", "All is well", thinking="hm"), result({MODEL: spent(1, 0.00054)})]
    )
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == "All is well"
    assert stage.history == [UserMessage("go"), AssistantMessage("All is well", "hm")]
    (step,) = stage.of_kind("step_finished")
    assert (step.model, step.usage.requests, step.usage.input_tokens, step.usage.output_tokens) == (MODEL, 1, 23, 23)
    assert step.usage.cached_input_tokens == 5


async def test_text_that_was_not_streamed_is_told_all_the_same(stage):
    stage.play([init(), assistant({"type": "text", "text": "whole"}), result({MODEL: spent(1, 0.00054)})])
    await stage.run()
    assert stage.text() == "whole"
    assert stage.history[-1] == AssistantMessage("whole")


async def test_the_program_is_given_its_options_and_the_prompt_on_stdin(stage):
    stage.play(ANSWER)
    runner = stage.runner(permission_mode="acceptEdits", allowed_tools=["Read", "Bash(git log:*)"], max_steps=7)
    text = "--help " + "x" * 300_000
    await stage.run(text, runner=runner, system_prompt="-be brief")
    assert stage.argv() == [
        *("-p", "--input-format=stream-json", "--output-format=stream-json"),
        *("--verbose", "--include-partial-messages"),
        f"--model={MODEL}",
        "--append-system-prompt=-be brief",
        "--permission-mode=acceptEdits",
        "--allowedTools=Read,Bash(git log:*)",
        "--max-turns=7",
        "--setting-sources=user",
    ]
    assert stage.told() == [text, prompt.ANSWER]
    assert stage.journal("cwd") == [str(stage.workspace)]


async def test_a_turn_of_few_steps_asks_for_no_more(stage):
    stage.play(ANSWER)
    turn = stage.turn()
    turn.max_steps = 3
    await stage.runner(max_steps=50).run(turn)
    assert "--max-turns=3" in stage.argv()


async def test_what_cannot_be_an_argument_is_refused_with_its_name(stage):
    with pytest.raises(InvalidRequest, match="system-prompt"):
        await stage.run(system_prompt="x" * 130_000)
    with pytest.raises(InvalidRequest, match="model"):
        await stage.run(model="claude\0")
    assert stage.journal("argv") == []


async def test_the_program_sees_neither_our_secrets_nor_an_outer_one_of_its_kind(stage, monkeypatch):
    ours = ("GATEWAY_OPENAI_API_KEY", "OPENAI_API_KEY", "AUDIT_TOKEN", "CLAUDECODE", "CLAUDE_CODE_SSE_PORT")
    its = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "SOME_PROXY")
    for name in (*ours, *its):
        monkeypatch.setenv(name, "value")
    stage.play(ANSWER)
    await stage.run()
    (env,) = stage.journal("env")
    assert not set(ours) & env.keys()
    assert set(its) <= env.keys()
    assert env["PATH"] == os.environ["PATH"]


async def test_tool_calls_are_told_and_kept_in_their_order(stage):
    """Results may come in any order, even before the message is whole; a history wants them behind it, in order."""
    first = message("msg_1", "Looking", [READ, BASH])
    early = first.index(assistant(BASH))
    stage.play(
        [
            *(init(), *first[:early], tool_result("toolu_1", "file"), *first[early:]),
            tool_result("toolu_2", [{"type": "text", "text": "ok"}], detail=BASH_DONE),
            *message("msg_2", "Done"),
            result({MODEL: spent(2, 0.00108)}),
        ]
    )
    assert await stage.run() == "STOP_REASON_COMPLETED"
    _, asked, *results, answer = stage.history
    assert asked.text == "Looking"
    assert [(call.name, call.provider_call_id, call.arguments) for call in asked.tool_calls] == [
        ("Read", "toolu_1", '{"file_path": "/w/a.txt"}'),
        ("Bash", "toolu_2", '{"command": "true"}'),
    ]
    assert results == [ToolMessage("toolu_1", "Read", "file"), ToolMessage("toolu_2", "Bash", "ok")]
    assert answer == AssistantMessage("Done")
    kinds = [event.WhichOneof("event") for event in stage.events]
    assert kinds.count("tool_call_started") == kinds.count("tool_call_finished") == 2
    assert kinds[-2:] == ["text_delta", "step_finished"]
    assert [call.id for call in asked.tool_calls] == [
        event.tool_call_id for event in stage.of_kind("tool_call_started")
    ]
    assert stage.totals.tool_calls == 2
    assert stage.totals.requests == 2


async def test_messages_without_calls_become_one(stage):
    """The program goes on by itself, as at its output limit; a history must not hold two answers in a row."""
    stage.play([init(), *message("msg_1", "one"), *message("msg_2", "two"), result({MODEL: spent(2, 0.00108)})])
    await stage.run()
    assert stage.history[1:] == [AssistantMessage("one\n\ntwo")]


async def test_a_subagent_s_calls_are_told_and_its_words_are_not(stage):
    task = tool_use("toolu_t", "Task", {"prompt": "look"})
    stage.play(
        [
            init(),
            *message("msg_1", "Asking", [task]),
            assistant({"type": "text", "text": "among us"}, message_id="msg_s", parent="toolu_t"),
            assistant(READ, message_id="msg_s", parent="toolu_t"),
            tool_result("toolu_1", "file", parent="toolu_t"),
            tool_result("toolu_t", "it is so"),
            *message("msg_2", "Done"),
            result({MODEL: spent(3, 0.00162)}),
        ]
    )
    await stage.run()
    assert [call.tool_name for call in stage.of_kind("tool_call_finished")] == ["Read", "Task"]
    assert stage.text() == "AskingDone"
    assert [call.name for call in stage.history[1].tool_calls] == ["Task"]
    assert [type(said).__name__ for said in stage.history[2:]] == ["ToolMessage", "AssistantMessage"]


async def test_work_in_the_background_is_waited_for(stage, monkeypatch):
    """The program's first result is not its last while a subagent works on, whose end wakes it again."""
    monkeypatch.setattr("gateway_svc.engines.claude.run.LINGER_SECONDS", 0.1)
    changed = {"type": "system", "subtype": "background_tasks_changed"}
    stage.play(
        [
            init(),
            *message("msg_1", "Started."),
            {**changed, "tasks": [{"task_id": "t"}]},
            result({MODEL: spent(1, 0.00054)}),
            {"do": "sleep", "seconds": 0.4},
            {**changed, "tasks": []},
            init(),
            *message("msg_2", " Finished."),
            result({MODEL: spent(2, 0.00108)}),
        ]
    )
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == "Started. Finished."


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "stop"),
    [
        ({"subtype": "error_max_turns", "error": True, "errors": ["Reached maximum"]}, "STOP_REASON_MAX_STEPS"),
        ({"subtype": "error_max_budget_usd", "error": True, "errors": ["Budget"]}, "STOP_REASON_MAX_COST"),
        ({"stop_reason": "max_tokens"}, "STOP_REASON_MAX_OUTPUT_TOKENS"),
        ({"stop_reason": "refusal", "error": True}, "STOP_REASON_CONTENT_FILTER"),
        ({}, "STOP_REASON_COMPLETED"),
    ],
)
async def test_why_it_stopped(stage, more, stop):
    stage.play([init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)}, **more)], exit=1)
    assert await stage.run() == stop


async def test_the_program_is_told_what_is_left_of_the_smallest_budget(stage):
    stage.play([init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)})])
    turn = stage.turn()
    turn.account.budgets = [Budget("this session", 90_000, lambda: 2_500), Budget("this turn", 100_000, lambda: 0)]
    await stage.runner().run(turn)
    assert "--max-budget-usd=0.087500" in stage.argv()
    stage.play([init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)})])
    await stage.run()
    assert not any("budget" in argument for argument in stage.argv())


async def test_a_budget_that_is_used_up_is_none_that_is_not_there(stage):
    """Another turn may have spent it since this one began."""
    stage.play([init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)})])
    turn = stage.turn()
    turn.account.budgets = [Budget("this session", 90_000, lambda: 95_000)]
    await stage.runner().run(turn)
    assert "--max-budget-usd=0.000001" in stage.argv()


async def test_the_program_goes_on_where_another_engine_was_cut_off(stage):
    """A fallback in the middle of a turn: what was said is told, and the last line is not a user's."""
    call = ToolCall("row-1", "call_1", "read", "{}")
    stage.play([init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)})])
    turn = stage.turn("look at the tides")
    turn.append(AssistantMessage("I look. ", "", (call,)))
    turn.append(ToolMessage("call_1", "read", "high"))
    await stage.runner().run(turn)
    texts = stage.told()
    assert "look at the tides" in texts[0]
    assert "used read" in texts[0]
    assert texts[1] == "Go on with this task."


@pytest.mark.long
async def test_a_turn_past_its_time_is_ended(stage):
    """What it did is kept, and the next turn goes on with the same session."""
    stage.play(
        [init(), *message("msg_1", "Looking", [BASH]), {"do": "wait"}],
        on_interrupt=[result({MODEL: spent(1, 0.00054)}, error=True)],
    )
    assert await stage.run(runner=stage.runner(max_turn_seconds=3.0)) == "STOP_REASON_MAX_TURN_SECONDS"
    assert stage.history[-1] == ToolMessage("toolu_2", "Bash", "The call was cancelled.")
    stage.play(ANSWER)
    await stage.run()
    assert f"--resume={SESSION}" in stage.argv()


async def test_lines_of_kinds_that_nobody_knows_are_passed_over(stage):
    odd = [{"type": "tool_progress", "elapsed": 1}, {"type": 7}, {}, {"type": "system", "subtype": "thinking_tokens"}]
    odd += [
        {"type": "assistant", "message": {"content": {"text": "?"}}},
        {"type": "user", "message": {"content": [None]}},
    ]
    odd += [event("ping"), {"type": "stream_event", "event": []}, {"type": "rate_limit_event", "rate_limit_info": None}]
    stage.play([*odd, *ANSWER[:-1], *odd, ANSWER[-1]])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == "All is well"


async def test_halves_of_characters_do_not_end_a_turn(stage):
    """JSON can carry a lone surrogate, which neither a proto nor a transcript can."""
    call = tool_use("toolu_1", "Re\ud800ad", {"file_path": "\udfff"})
    stage.play([init(), *message("msg_1", "a\ud800b", [call]), tool_result("toolu_1", "\ud800"), result({})])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == "a\ufffdb"


@pytest.mark.long
@pytest.mark.parametrize(
    ("info", "told"),
    [
        (
            {"status": "allowed_warning", "rateLimitType": "five_hour", "resetsAt": 1764000000, "utilization": 0.91},
            pb.RateLimitChanged(
                status=pb.RATE_LIMIT_STATUS_NEAR, window="five_hour", resets_at_ms=1764000000000, utilization=0.91
            ),
        ),
        ({"status": "allowed"}, pb.RateLimitChanged(status=pb.RATE_LIMIT_STATUS_ALLOWED)),
        (
            {"status": "rejected", "rateLimitType": "seven_day", "utilization": 1.2},
            pb.RateLimitChanged(status=pb.RATE_LIMIT_STATUS_REACHED, window="seven_day", utilization=1.0),
        ),
        ({"status": "new", "rateLimitType": "a b", "resetsAt": "soon", "utilization": "all"}, pb.RateLimitChanged()),
    ],
)
async def test_the_client_hears_of_the_account_s_limits(stage, info, told):
    """As far as the program tells of them; what it tells otherwise than known is left out."""
    stage.play([init(), {"type": "rate_limit_event", "rate_limit_info": info}, *ANSWER[1:]])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.of_kind("rate_limit_changed") == [told]
