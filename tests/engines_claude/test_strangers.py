"""Lines in which something is odd: the files in strangers/, whose first line says what is right, and their kinds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.engines.claude.speech import AGAIN
from gateway_svc.messages import AssistantMessage
from tests.engines_claude.stage import Stage
from tests.support.claude_cli import (
    MODEL,
    Line,
    assistant,
    event,
    init,
    message,
    result,
    spent,
    tool_result,
    tool_use,
)

STRANGERS = Path(__file__).parent / "strangers"
HOUR = 3600.0


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines() if not line.startswith("#")]


def input_is_text(stage: Stage) -> None:
    (row,) = stage.ledger.calls
    assert (row.tool_name, row.provider_call_id, row.outcome) == ("Bash", "t1", common_pb2.OUTCOME_SUCCEEDED)
    assert "$malformed" in row.args_summary
    assert [intent.id for intent in stage.ledger.intents] == [row.id]
    assert [event.tool_call_id for event in stage.of_kind("tool_call_started")] == [row.id]
    assert [event.tool_call_id for event in stage.of_kind("tool_call_finished")] == [row.id]
    assert stage.text() == "done"


def odd_usage(stage: Stage) -> None:
    assert [row.provider_call_id for row in stage.ledger.calls] == ["t1"]
    odd = stage.ledger.costs[0]
    assert (odd.input_tokens, odd.usage_incomplete, odd.HasField("cost_micros")) == (0, True, False)
    assert sum(row.input_tokens for row in stage.ledger.costs) == 46
    assert sum(row.cost_micros for row in stage.ledger.costs) == 20_000


def background_server(stage: Stage) -> None:
    assert stage.text() == "startingIt runs."
    assert [row.outcome for row in stage.ledger.calls] == [common_pb2.OUTCOME_SUCCEEDED]


def second_result(stage: Stage) -> None:
    assert stage.text() == "All done."
    (row,) = stage.ledger.costs
    assert (row.cost_micros, row.error) == (10_000, "")


def content_is_text(stage: Stage) -> None:
    assert stage.text() == "plain words"
    assert stage.history[-1] == AssistantMessage("plain words")


RIGHT: dict[str, Callable[[Stage], None]] = {
    "80-claude-input-is-text": input_is_text,
    "82-claude-odd-usage": odd_usage,
    "83-claude-background-server": background_server,
    "84-claude-second-result": second_result,
    "87-claude-content-is-text": content_is_text,
}


@pytest.mark.long
@pytest.mark.parametrize("name", RIGHT)
async def test_a_stranger_s_lines_are_taken(stage, name):
    stage.play(lines_of(STRANGERS / f"{name}.jsonl"))
    assert await stage.run(runner=stage.runner(max_turn_seconds=HOUR)) == "STOP_REASON_COMPLETED"
    RIGHT[name](stage)


def test_every_stranger_is_played():
    """The inputs told in words (90 to 92) are tests of their own: test_real_isolation, test_isolation, and below."""
    assert {path.stem for path in STRANGERS.glob("*.jsonl")} == RIGHT.keys()


# kind 3: a call whose parts are odd


@pytest.mark.long
@pytest.mark.parametrize(
    "odd",
    [
        *({"input": given} for given in ("text", 7, None, ["a"], True)),
        *({"id": 7}, {"id": None}, {"id": {}}, {"name": None}, {"name": ["Bash"]}, {"caller": {"type": "direct"}}),
    ],
    ids=str,
)
async def test_a_call_with_an_odd_part_is_a_row_and_costs_its_neighbours_nothing(stage, odd):
    good = tool_use("toolu_good", "Read", {"file_path": "/w/a"})
    line = assistant({**tool_use("toolu_odd", "Bash", {"command": "ls"}), **odd})
    line["message"]["content"] += [good, {"type": "text", "text": "beside"}, None, 7, "words"]
    results = [tool_result("toolu_odd", "x"), tool_result("toolu_good", "y")]
    stage.play([init(), line, *results, *message("msg_2", "Done"), result({MODEL: spent(2, 0.00108)})])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert len(stage.ledger.intents) == len(stage.ledger.calls) == len(stage.of_kind("tool_call_finished")) == 2
    outcomes = {row.provider_call_id: row.outcome for row in stage.ledger.calls}
    assert outcomes["toolu_good"] == common_pb2.OUTCOME_SUCCEEDED
    assert stage.text() == "besidewordsDone"


async def test_a_call_whose_own_line_cannot_be_read_is_told_by_the_stream(stage):
    """As one whose arguments nest deeper than JSON is read."""
    deep = '{"a":' * 20_000 + "1" + "}" * 20_000
    lines = message("msg_1", "", [tool_use("toolu_1", "Bash", {"command": "ls"})])
    told = [line for line in lines if line["type"] != "assistant"]
    told[2]["event"]["delta"]["partial_json"] = deep
    stage.play([init(), *told, tool_result("toolu_1", "x"), *message("msg_2", "Done"), result({})])
    await stage.run()
    (row,) = stage.ledger.calls
    assert (row.tool_name, row.outcome) == ("Bash", common_pb2.OUTCOME_SUCCEEDED)
    assert "$malformed" in row.args_summary


async def test_a_call_of_a_stream_that_broke_off_was_not_made(stage):
    cut = [line for line in message("msg_1", "", [tool_use("toolu_1", "Bash", {})])[:-2] if line["type"] != "assistant"]
    stage.play([init(), *cut, event("message_stop"), *message("msg_2", "Done"), result({})])
    await stage.run()
    assert stage.ledger.calls == stage.ledger.intents == []


async def test_a_call_that_the_model_s_server_ran_is_a_row(stage):
    """Its result is a block of the same message."""
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "tides"}}
    failed = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": failed}
    stage.play([init(), assistant(used), assistant(found), *message("msg_2", "Done"), result({})])
    await stage.run()
    (row,) = stage.ledger.calls
    assert (row.tool_name, row.outcome) == ("web_search", common_pb2.OUTCOME_FAILED)


# kind 15: a stream that breaks off (92-claude-cut-stream.txt)


def cut(text: str) -> list[Line]:
    """A message whose stream breaks off behind this text, as the program tells it: no whole block, and no end."""
    *told, _end, stop = [line for line in message("msg_1", text) if line["type"] != "assistant"]
    return [*told, stop]


SIX = "one two three four five six"
UNSTREAMED = assistant({"type": "text", "text": SIX}, message_id="msg_2")


@pytest.mark.long
@pytest.mark.parametrize(
    ("heard", "again", "told"),
    [
        ("one two three ", [UNSTREAMED], SIX),
        ("one two three ", message("msg_2", SIX), SIX),
        ("", [UNSTREAMED], SIX),
        (SIX, [UNSTREAMED], SIX),
        (SIX, message("msg_2", "one two"), f"{SIX}{AGAIN}one two"),
        ("one too ", [UNSTREAMED], f"one too {AGAIN}{SIX}"),
        ("one too ", message("msg_2", SIX), f"one too {AGAIN}{SIX}"),
        ("one too ", [*cut("one two")[:-1], *message("msg_3", SIX)], f"one too {AGAIN}{SIX}"),
    ],
)
async def test_what_a_stream_that_broke_off_did_not_tell_is_told(stage, heard, again, told):
    stage.play([init(), *cut(heard), *again, result({MODEL: spent(2, 0.00108)})])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == told
    assert stage.history[-1].text == told.rpartition(AGAIN)[2]
    assert stage.ledger.costs[0].usage_incomplete


async def test_text_that_only_the_result_tells_is_told(stage):
    stage.play([init(), result({MODEL: spent(1, 0.00054)}, result="All is well")])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == "All is well"
    assert stage.history[-1] == AssistantMessage("All is well")


async def test_what_was_heard_of_an_answer_that_was_cut_stays_in_the_session(stage):
    pieces = [line for line in message("msg_1", "half of it")[:-3] if line["type"] != "assistant"]
    stage.play([init(), *pieces, {"do": "kill"}])
    with pytest.raises(Exception, match="in the middle"):
        await stage.run()
    assert stage.history[-1] == AssistantMessage(stage.text())


# kind 17: when a turn is over


async def test_an_answer_whose_result_never_came_is_an_answer(stage):
    stage.play([init(), *message("msg_1", "All is well"), {"do": "exit", "code": 0}])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    (row,) = stage.ledger.costs
    assert (row.input_tokens, row.output_tokens, row.error) == (23, 23, "")


@pytest.mark.long
@pytest.mark.parametrize(
    "lines",
    [
        [*message("msg_1", "", [tool_use("toolu_1", "Bash", {})])],
        [*message("msg_1", "", [tool_use("toolu_1", "Bash", {})]), tool_result("toolu_1", "x")],
        [*message("msg_1", "x", stop=None)],
        [*message("msg_1", "x"), *cut("more")],
    ],
)
async def test_an_answer_that_did_not_end_is_none_however_the_program_ended(stage, lines):
    stage.play([init(), *lines, {"do": "exit", "code": 0}])
    with pytest.raises(Exception, match="ended with code 0 in the middle"):
        await stage.run()


@pytest.mark.long
@pytest.mark.parametrize("again", [{"subtype": "error_during_execution"}, {"subtype": "error_max_turns"}, {}])
@pytest.mark.parametrize("woken", [[], [init()]], ids=["at once", "woken"])
async def test_a_result_behind_which_nothing_was_done_changes_nothing(stage, again, woken):
    end = result({MODEL: spent(1, 0.00054)})
    stage.play([init(), *message("msg_1", "x"), end, *woken, {**end, "is_error": True, "errors": ["odd"], **again}])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert [row.cost_micros for row in stage.ledger.costs] == [540]


async def test_a_failure_is_not_mended_by_a_result_that_follows_it(stage):
    stage.play([init(), *message("msg_1", "x"), result({}, error=True, result="broken"), result({})])
    with pytest.raises(Exception, match="broken"):
        await stage.run()


@pytest.mark.parametrize("kind", ["local_bash", "monitor_mcp"])
async def test_a_command_in_the_background_does_not_hold_the_turn(stage, kind):
    tasks = {"type": "system", "subtype": "background_tasks_changed", "tasks": [{"task_id": "b1", "task_type": kind}]}
    stage.play([init(), *message("msg_1", "x"), tasks, result({MODEL: spent(1, 0.00054)})])
    assert await stage.run(runner=stage.runner(max_turn_seconds=HOUR)) == "STOP_REASON_COMPLETED"


# kinds 4 and 14: what is not known to be good is not


@pytest.mark.long
@pytest.mark.parametrize(
    "odd",
    [
        *({"stop_reason": reason} for reason in ("pause_turn", "tool_use", "new_reason", 7)),
        *({"subtype": subtype} for subtype in ("error_of_tomorrow", "partial", 7)),
        *({"is_error": error} for error in (None, "no", 0.5)),
    ],
    ids=str,
)
async def test_an_end_that_is_not_known_to_be_good_is_a_failure(stage, odd):
    stage.play([init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)}) | odd])
    with pytest.raises(Exception, match="engine claude"):
        await stage.run()


@pytest.mark.parametrize("reason", ["new_reason", "pause_turn"])
async def test_nor_is_a_message_s_end_where_the_result_does_not_say_it(stage, reason):
    stage.play([init(), *message("msg_1", "x", stop=reason), result({MODEL: spent(1, 0.00054)})])
    with pytest.raises(Exception, match=f"stopped for the reason '{reason}'"):
        await stage.run()


async def test_an_answer_without_text_call_thought_or_token_is_none(stage):
    stage.play([init(), result({})])
    with pytest.raises(Exception, match="empty answer"):
        await stage.run()


@pytest.mark.long
@pytest.mark.parametrize(
    ("shown", "outcome", "exit_code"),
    [
        ("Exit code 3\nCommand timed out after 3s", "SUCCEEDED", 3),
        ("Exit code 143\nstopping\nCommand timed out after 3s", "SUCCEEDED", 143),
        ("Exit code 143\nCommand timed out after 2m 0.0s\nout", "TIMED_OUT", 0),
        ("Error: InputValidationError of the server's own", "FAILED", 0),
    ],
)
async def test_what_a_command_or_a_server_says_is_not_the_program_s_word(stage, shown, outcome, exit_code):
    name = "mcp__srv__go" if outcome == "FAILED" else "Bash"
    call = tool_use("toolu_1", name, {})
    stage.play(
        [
            init(),
            *message("msg_1", "", [call]),
            tool_result("toolu_1", shown, error=True),
            *message("m", "x"),
            result({}),
        ]
    )
    await stage.run()
    (row,) = stage.ledger.calls
    assert (row.outcome, row.exit_code) == (common_pb2.Outcome.Value(f"OUTCOME_{outcome}"), exit_code)


# kind 6: a count that cannot be read


@pytest.mark.long
@pytest.mark.parametrize("given", ["eleven", 11.5, -1, True, [11], {}])
async def test_a_count_that_cannot_be_read_is_never_a_bill_of_less(stage, given):
    lines = message("msg_1", "x")
    for line in lines:
        body = line["event"].get("message") if line["type"] == "stream_event" else line["message"]
        if body:
            body["usage"] = {**body["usage"], "input_tokens": given}
    stage.play([init(), *lines, {"do": "exit", "code": 0}])
    await stage.run()
    (row,) = stage.ledger.costs
    assert row.usage_incomplete
    assert not row.HasField("cost_micros")


@pytest.mark.long
@pytest.mark.parametrize("given", [None, "many", {}])
async def test_an_end_without_its_output_is_incomplete(stage, given):
    """The first lines tell an output of 1 for all that is to come."""
    lines = message("msg_1", "x")
    lines[-2]["event"]["usage"] = {"output_tokens": given}
    stage.play([init(), *lines, {"do": "exit", "code": 0}])
    await stage.run()
    assert stage.ledger.costs[0].usage_incomplete
