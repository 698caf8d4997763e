"""Transcripts of earlier versions go on, whatever state they are in."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2
from structlog.testing import capture_logs

from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.messages import AssistantMessage, Message, UserMessage

STATE = {
    "id": "s1",
    "settings": {"engine": "one", "model": "m1", "system_prompt": "be brief"},
    "status": common_pb2.SESSION_STATUS_IDLE,
    "revision": 3,
    "turns": 1,
    "totals": {"requests": 1},
    "created_at_ms": 5,
    "updated_at_ms": 7,
    "shadow_totals": {},
    "owner": "ada",
}
ASKED, ANSWERED = {"user": "look"}, {"assistant": {"text": "done", "thinking": "", "tool_calls": []}}


def line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def older(state_dir: Path, name: str, *lines: bytes) -> Path:
    path = state_dir / "sessions" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


async def read(state_dir: Path) -> tuple[list[Message], str]:
    lease = await FileConversations(state_dir).open("s1")
    lease.give_up()
    return lease.history.messages, lease.history.unreadable


@pytest.mark.parametrize(
    ("lines", "holes"),
    [
        ([line({"session": STATE}), line(ASKED), line(ANSWERED)], ""),
        ([line({"session": STATE}), line(ASKED), line(ANSWERED), b'{"user": "torn'], ""),
        ([line({"session": STATE}), line(ASKED), b'{"user": "torn\n', line(ANSWERED)], "records 2 to 2 are missing"),
        ([line({"session": STATE}), line(ASKED), line([1]), line(ANSWERED)], "records 2 to 2 are missing"),
        ([line({"session": STATE}), line(ASKED), line({"what": 1}), line(ANSWERED)], "records 2 to 2 are missing"),
        ([line({"session": STATE}), line(ASKED), line({"session": 5}), line(ANSWERED)], ""),
        ([line({"session": STATE}), line(ASKED), line(ANSWERED), line({"session": {**STATE, "revision": 4}})], ""),
    ],
    ids=["whole", "torn", "damaged", "no object", "no message", "no state", "two states"],
)
async def test_what_was_said_and_what_the_session_is_are_moved(tmp_path, lines, holes):
    path = older(tmp_path, "s1", *lines)
    assert await read(tmp_path) == ([UserMessage("look"), AssistantMessage("done")], holes)
    assert not path.exists()
    state = await FileConversations(tmp_path).state("s1", "ada")
    assert (state.settings.system_prompt, state.turns, state.updated_at_ms) == ("be brief", 1, 7)


@pytest.mark.parametrize(
    ("name", "data"),
    [("s1", b""), ("s1", b"\0" * 500), ("s1", line(ASKED)), ("s2", line({"session": STATE})), ("a b", line(ASKED))],
    ids=["empty", "zeros", "no state", "another's", "no id"],
)
async def test_what_cannot_be_read_is_set_aside_with_a_line_and_hinders_nobody(tmp_path, name, data):
    older(tmp_path, name, data)
    older(tmp_path, "s3", line({"session": {**STATE, "id": "s3"}}))
    with capture_logs() as logs:
        home = FileConversations(tmp_path)
    assert [state.id for state in (await home.list_page(9, None, None)).states] == ["s3"]
    assert [entry["event"] for entry in logs] == ["session.set_aside", "sessions.moved"]
    assert (tmp_path / "sessions" / "set-aside" / f"{name}.jsonl").read_bytes() == data


async def test_who_was_stopped_while_moving_begins_again(tmp_path):
    """The old file goes last, so a second start finds both."""
    lines = [line({"session": STATE}), line(ASKED), line(ANSWERED)]
    older(tmp_path, "s1", *lines)
    FileConversations(tmp_path)
    older(tmp_path, "s1", *lines)
    assert await read(tmp_path) == ([UserMessage("look"), AssistantMessage("done")], "")


async def test_one_that_an_older_gateway_holds_stays_with_it(tmp_path):
    path = older(tmp_path, "s1", line({"session": STATE}))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        FileConversations(tmp_path)
        assert path.exists()
    FileConversations(tmp_path)
    assert not path.exists()


async def test_a_turn_that_ran_when_the_older_gateway_died_is_found_by_recovery(tmp_path):
    older(tmp_path, "s1", line({"session": {**STATE, "status": common_pb2.SESSION_STATUS_RUNNING}}))
    home = FileConversations(tmp_path)
    assert await home.abandoned() == ["s1"]
    assert (await home.state("s1", None)).status == common_pb2.SESSION_STATUS_FAILED
