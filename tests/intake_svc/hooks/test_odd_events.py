"""Events as agents of other versions may send them: no call is lost for a part of it, and none succeeds unasked."""

import json
import time
from typing import Any

import pytest

from intake_svc.hooks.event import WrongEvent, from_line, read_event
from tests.intake_svc.exports import JSON, post, post_json
from tests.intake_svc.hooks.test_claude import after, before, export, hook, quick, result, rows_of, tell

__all__ = ["quick"]

NOW_MS = 1_795_964_277_000
ENDS = {
    "copilot": ({"sessionId": "s", "toolName": "bash"}, "postToolUse", "toolResult"),
    "gemini": ({"session_id": "s", "tool_name": "glob"}, "AfterTool", "tool_response"),
}


@pytest.mark.parametrize("agent", ENDS)
@pytest.mark.parametrize("result", [None, "it went well", [], 1])
def test_a_result_that_does_not_say_how_the_call_ended_is_no_success(agent, result):
    said, name, field = ENDS[agent]
    assert not read_event(agent, said | {field: result}, NOW_MS, name).is_known
    assert not read_event(agent, said, NOW_MS, name).is_known


@pytest.mark.parametrize(
    ("failure", "outcome", "error"),
    [
        ("error", "failed", "the agent tells of a failure"),
        ("timeout", "timed_out", "the agent tells of a time limit"),
        ("permission_denied", "denied", ""),
        ("a_new_word", "failed", "the agent tells of a failure"),
        (None, "failed", "the agent tells of a failure"),
    ],
)
def test_how_a_call_of_cursor_failed(quick, failure, outcome, error):
    house, door = quick
    session = f"s-cursor-{failure}"
    call = {"conversation_id": session, "tool_name": "Shell", "tool_use_id": "call_1"}
    failed = {"hook_event_name": "postToolUseFailure", "failure_type": failure, "error_message": "words", "duration": 5}
    tell(door, call | {"hook_event_name": "preToolUse"}, call | failed, agent="cursor")
    (row,) = rows_of(house, session)
    assert (row["outcome"], row["error"] or "") == (outcome, error)


def test_a_call_of_copilot_in_vs_code_is_one_row_of_its_hooks_and_its_spans(quick):
    """It runs the hooks of Copilot CLI by its own names; its spans have the model server's id of the call."""
    house, door = quick
    call: dict[str, Any] = {
        "session_id": "s-vs-code",
        "tool_name": "run_in_terminal",
        "tool_use_id": "call_1__vscode-1",
    }
    call |= {"tool_input": {"command": "ls"}, "timestamp": "2026-11-28T10:00:00.000Z"}
    tell(door, call | {"_event": "preToolUse", "hook_event_name": "PreToolUse"}, agent="copilot")
    now_ns = time.time_ns()
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "run_in_terminal",
        "gen_ai.tool.call.id": "call_1",
        "copilot_chat.chat_session_id": "s-vs-code",
    }
    span = {
        "traceId": "0" * 31 + "1",
        "spanId": "0" * 15 + "1",
        "startTimeUnixNano": str(now_ns),
        "endTimeUnixNano": str(now_ns + 1_000_000),
        "attributes": [{"key": key, "value": {"stringValue": text}} for key, text in attributes.items()],
    }
    scope = {"scope": {"name": "copilot-chat"}, "spans": [span]}
    assert post_json(door.http, "/v1/traces", {"resourceSpans": [{"scopeSpans": [scope]}]})[0] == 200
    tell(door, call | {"hook_event_name": "PostToolUse", "tool_response": "a file"}, agent="copilot")
    tell(door, call | {"hook_event_name": "Stop"}, agent="copilot")
    (row,) = rows_of(house, "s-vs-code")
    assert (row["tool_name"], row["outcome"], row["engine"]) == ("run_in_terminal", "succeeded", "copilot")
    tell(door, before("s-behind"), after("s-behind"))
    rows_of(house, "s-behind")
    assert [row["session_id"] for row in house.rows()].count("s-vs-code") == 1


def test_a_call_whose_duration_cannot_be_is_a_row_with_the_time_of_its_event(quick):
    """The ledger takes no row of before the year 2000."""
    house, door = quick
    tell(door, after("s-long", duration_ms=2**52))
    (row,) = rows_of(house, "s-long")
    assert row["duration_ms"] == 0


def test_a_kept_line_whose_duration_cannot_be_is_none():
    line = json.loads(read_event("claude", after("s"), NOW_MS).to_line())
    with pytest.raises(WrongEvent):
        from_line(json.dumps(line | {"duration_ms": 2**52}).encode())


def test_a_byte_that_is_no_utf8_costs_no_call(quick, tmp_path):
    house, door = quick
    for event in (before("s-latin"), after("s-latin")):
        body = json.dumps(event | {"tool_input": {"command": "ls é"}}, ensure_ascii=False).encode("latin-1")
        assert post(door.http, "/hooks/claude", body, JSON)[0] == 204
    (row,) = rows_of(house, "s-latin")
    assert '"command":"ls ' in row["args_summary"]


@pytest.mark.long
def test_an_event_of_more_values_than_the_door_parses_is_kept_without_them_and_handed_over(quick, tmp_path):
    """Three bytes of a result would become sixty in the door's memory."""
    house, door = quick
    large = after("s-large") | {"tool_response": [[]] * 300_000}
    assert post(door.http, "/hooks/claude", json.dumps(large), JSON)[0] == 413
    assert hook(door.http, large, folder=tmp_path).returncode == 0
    assert hook(door.http, {"hook_event_name": "Stop"}, folder=tmp_path).returncode == 0
    (row,) = rows_of(house, "s-large")
    assert (row["outcome"], row["result_bytes"]) == ("succeeded", 0)


def test_an_export_that_has_the_result_of_a_hooks_call_twice_adds_no_row(quick):
    """A collector puts together what it was sent again."""
    house, door = quick
    tell(door, before("s-again"), after("s-again"))
    document = result("s-again")
    records = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    records += [records[0], {**records[0], "timeUnixNano": "1790000000003000000"}]
    export(door, document)
    tell(door, before("s-behind"), after("s-behind"))
    rows_of(house, "s-behind")
    assert len(rows_of(house, "s-again")) == 1
