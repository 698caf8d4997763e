"""Claude Code's hooks: one row a call, whatever of the call is told, in whatever order."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.intake_svc.conftest import DoorProcess, House, open_house, wait_for
from tests.intake_svc.exports import JSON, post

HOOK = Path(sys.executable).with_name("onrecord-hook")
SAMPLES = Path(__file__).parent / "samples"
CANARY = "CANARY-7f3a it is a sentence"


def hook(
    door: str, event: Any, *words: str, agent: str = "claude", folder: Path | None = None, root: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Runs the hook as the agent does. root: of the packages, where another folder is the current one."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "INTAKE_HTTP_LISTEN": door}
    if root:
        env["PYTHONPATH"] = root
    if folder:
        env["ONRECORD_HOOK_DIR"] = str(folder)
    command = [sys.executable, "-c", "from intake_svc.hooks.client import main; main()", agent, *words]
    return subprocess.run(command, input=json.dumps(event).encode(), env=env, capture_output=True, timeout=60)


def tell(door: DoorProcess, *events: Any, agent: str = "claude") -> None:
    for event in events:
        name = event.pop("_event", "")
        status, _, body = post(door.http, f"/hooks/{agent}?event={name}", json.dumps(event), JSON)
        assert status in (200, 204), body


def before(session: str, call: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {
        "session_id": session,
        "prompt_id": "p-1",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": "ls -l", "description": CANARY},
        "tool_use_id": call,
        **more,
    }


def after(session: str, call: str = "toolu_1", **more: Any) -> dict[str, Any]:
    response = {"stdout": CANARY, "stderr": "", "interrupted": False}
    told = {"hook_event_name": "PostToolUse", "tool_response": response, "duration_ms": 58}
    return before(session, call) | told | more


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A house whose calls go on the record at once."""
    with open_house(tmp_path_factory.mktemp("hooks")) as house:
        house.start_audit()
        yield house, house.start_door(INTAKE_JOIN_SECONDS="0.2")


def rows_of(house: House, session: str, count: int = 1) -> list[dict[str, Any]]:
    def look() -> Any:
        found = [row for row in house.rows() if row["session_id"] == session]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = wait_for(look)
    return found


def result(session: str, call: str = "toolu_1", **more: str) -> dict[str, Any]:
    """Claude Code's own telemetry of the same call."""
    said = {
        "event.name": "tool_result",
        "event.timestamp": "2026-11-29T09:00:00.000Z",
        "session.id": session,
        "prompt.id": "p-1",
        "tool_name": "Bash",
        "tool_use_id": call,
        "success": "true",
        "duration_ms": "61",
        "tool_result_size_bytes": "15",
        "decision_type": "accept",
        "decision_source": "config",
        **more,
    }
    record = {
        "timeUnixNano": "1790000000000000000",
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in said.items()],
    }
    scope = {"scope": {"name": "com.anthropic.claude_code.events"}, "logRecords": [record]}
    resource = {"attributes": [{"key": "service.version", "value": {"stringValue": "2.1.197"}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}


def export(door: DoorProcess, document: Any) -> None:
    status, _, body = post(door.http, "/v1/logs", json.dumps(document), JSON)
    assert status == 200, body


def test_a_call_is_one_row_with_the_hooks_times(quick):
    house, door = quick
    tell(door, before("s-one"), after("s-one"))
    (row,) = rows_of(house, "s-one")
    assert (row["tool_name"], row["provider_call_id"], row["duration_ms"]) == ("Bash", "toolu_1", 58)
    assert row["engine"] == "claude"
    assert row["turn_id"] == "p-1"
    assert '"command":"ls -l"' in row["args_summary"]
    assert CANARY not in json.dumps(row, default=str)


@pytest.mark.long
def test_hooks_that_are_configured_twice_tell_of_one_call(quick):
    house, door = quick
    tell(door, before("s-twice"), before("s-twice"), after("s-twice"), after("s-twice"))
    rows_of(house, "s-twice")
    tell(door, before("s-later"), after("s-later"))
    rows_of(house, "s-later")
    assert [row["outcome"] for row in rows_of(house, "s-twice")] == [rows_of(house, "s-later")[0]["outcome"]]


def test_a_failure_has_its_exit_code_and_no_word_of_the_error(quick):
    house, door = quick
    failed = {"hook_event_name": "PostToolUseFailure", "error": f"Exit code 3\n{CANARY}", "is_interrupt": False}
    tell(door, before("s-failed"), before("s-failed") | failed)
    (row,) = rows_of(house, "s-failed")
    assert row["exit_code"] == 3
    assert CANARY not in json.dumps(row, default=str)


@pytest.mark.long
def test_a_call_that_nobody_ended_is_interrupted_when_its_session_ends(quick):
    house, door = quick
    tell(door, before("s-open"), {"session_id": "s-open", "hook_event_name": "SessionEnd", "reason": CANARY})
    (row,) = rows_of(house, "s-open")
    assert row["error"] == "the session ended while the call was open"


@pytest.mark.long
def test_hook_and_telemetry_of_one_call_are_one_row(tmp_path):
    """In each order in which they can come; a second export of the same changes nothing."""
    with open_house(tmp_path) as house:
        house.start_audit()
        door = house.start_door(INTAKE_JOIN_SECONDS="2")
        tell(door, before("s-a"), after("s-a"))
        export(door, result("s-a"))
        tell(door, before("s-b"))
        export(door, result("s-b"))
        tell(door, after("s-b"))
        tell(door, before("s-c"), after("s-c"))
        rows_of(house, "s-c")  # alone, after the time to join
        export(door, result("s-c"))
        for session in ("s-a", "s-b", "s-c", "s-d"):
            export(door, result(session))
        tell(door, after("s-d"))  # telemetry alone was first
        rows = wait_for(lambda: found if len(found := house.rows()) >= 4 else None)
        assert sorted(row["session_id"] for row in rows) == ["s-a", "s-b", "s-c", "s-d"]
        joined = {row["session_id"]: row for row in rows}
        assert joined["s-a"]["duration_ms"] == 58
        assert joined["s-a"]["result_bytes"] == 15
        assert joined["s-a"]["agent_version"] == "2.1.197"
        assert joined["s-b"]["duration_ms"] == 61
        assert '"command":"ls -l"' in joined["s-b"]["args_summary"]
        assert not list((house.state / "spool").rglob("*dead*"))


@pytest.mark.long
def test_a_call_that_runs_while_the_door_is_killed_is_one_row_that_says_how_it_ended(tmp_path):
    with open_house(tmp_path) as house:
        house.start_audit()
        door = house.start_door(INTAKE_JOIN_SECONDS="0.2")
        tell(door, before("s-killed"))
        door.service.process.kill()
        door.service.process.wait()
        door = house.start_door(INTAKE_JOIN_SECONDS="0.2")
        tell(door, after("s-killed"))
        (row,) = rows_of(house, "s-killed")
        assert row["duration_ms"] == 58
        assert not row["error"]


@pytest.mark.long
def test_a_door_that_ends_sends_what_has_ended_and_keeps_what_is_open(tmp_path):
    with open_house(tmp_path) as house:
        house.start_audit()
        door = house.start_door(INTAKE_JOIN_SECONDS="3600")
        tell(door, before("s-ended"), after("s-ended"), before("s-open-still"))
        assert door.service.terminate() == 0
        rows_of(house, "s-ended")
        door = house.start_door(INTAKE_JOIN_SECONDS="0.2")
        tell(door, after("s-open-still"))
        (row,) = rows_of(house, "s-open-still")
        assert not row["error"]
