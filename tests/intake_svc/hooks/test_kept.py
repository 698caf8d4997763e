"""What a hook kept since it had no answer, and the door may have on its disk: no call is lost, and none is two."""

import asyncio
import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from intake_svc.calls.calls import Calls
from intake_svc.calls.journal import Journal
from intake_svc.hooks.client import NotTaken, Options, post
from intake_svc.hooks.event import HookEvent, from_line, read_event
from intake_svc.hooks.kept import PIECE_BYTES, hand_over
from intake_svc.hooks.rows import NOT_TOLD
from intake_svc.hooks.service import Hooks
from intake_svc.labels import SessionLabels
from intake_svc.metrics import DoorMetrics
from intake_svc.stops import Stops
from recording.args_key import ArgsKey
from recording.record import Record
from tests.intake_svc.conftest import wait_for
from tests.intake_svc.hooks.test_apart import Desk
from tests.intake_svc.hooks.test_claude import after, before, hook, rows_of
from tests.support.small_disk import hog, mounted_at

NOW_MS = 1_795_964_277_000
ARGS_KEY = ArgsKey("a-key", bytes(32))
NAMES = {"claude": ("PreToolUse", "PostToolUse"), "gemini": ("BeforeTool", "AfterTool")}
"""Of an agent that gives calls ids, and of one that gives none."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.calls = Calls(desk.journal, ARGS_KEY, 0.0, 60.0)
    try:
        yield desk
    finally:
        desk.journal.close()


def restart(desk: Desk) -> None:
    desk.restart()
    desk.calls = Calls(desk.journal, ARGS_KEY, 0.0, 60.0)


def event(agent: str, step: int, at_ms: int, id_: str = "", command: str = "ls") -> HookEvent:
    """step: 0 before the tool runs, 1 after it."""
    said: dict[str, Any] = {"session_id": "s", "tool_name": "Bash", "tool_input": {"command": command}}
    if agent == "claude":
        said["tool_use_id"] = "t"
    return read_event(agent, said | {"hook_event_name": NAMES[agent][step]}, at_ms, id_=id_)


def kept(one: HookEvent) -> HookEvent:
    return from_line(one.to_line().encode())


@pytest.mark.parametrize("agent", NAMES)
@pytest.mark.parametrize("moment", ["open", "ended", "on record"])
def test_an_event_that_a_killed_door_had_on_its_disk_and_the_hook_kept_too_is_told_once(desk, agent, moment):
    begins, ends = event(agent, 0, NOW_MS, "0" * 16), event(agent, 1, NOW_MS + 200, "1" * 16)
    assert desk.calls.begin(begins, "")
    restart(desk)
    if moment != "open":
        assert desk.calls.end(ends, "")
        restart(desk)
    if moment == "on record":
        desk.flush()
        restart(desk)
    assert not desk.calls.begin(kept(begins), "", is_kept=True)
    assert desk.calls.end(kept(ends), "", is_kept=True) == (moment == "open")
    desk.flush()
    assert len(desk.stored) == 1
    assert desk.calls.waiting() == 0


def test_a_call_that_had_ended_when_the_door_was_killed_is_no_open_one_though_nobody_told_how(desk):
    """Nor how long it took: its end came without a begin."""
    said = {"session_id": "s", "tool_name": "shell", "tool_use_id": "t", "tool_response": "out"}
    desk.calls.end(read_event("codex", said | {"hook_event_name": "PostToolUse"}, NOW_MS), "")
    restart(desk)
    desk.flush()
    (row,) = desk.stored.values()
    assert (row.error, row.duration_ms, row.result_bytes) == (NOT_TOLD, 0, 3)


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_hook_that_is_configured_twice_and_had_one_answer_tells_of_one_call(desk, has_ended):
    assert desk.calls.begin(event("claude", 0, NOW_MS, "0" * 16), "")
    restart(desk)
    if has_ended:
        assert desk.calls.end(event("claude", 1, NOW_MS + 200, "1" * 16), "")
    assert not desk.calls.begin(kept(event("claude", 0, NOW_MS + 90, "2" * 16)), "", is_kept=True)
    desk.flush()
    assert len(desk.stored) == has_ended


def test_a_call_that_was_kept_is_none_of_a_later_one_to_which_the_agent_gave_its_id(desk):
    assert desk.calls.begin(event("claude", 0, NOW_MS + 60_000, "2" * 16), "")  # its own event first, then what it kept
    assert desk.calls.begin(kept(event("claude", 0, NOW_MS, "0" * 16)), "", is_kept=True)
    assert desk.calls.end(kept(event("claude", 1, NOW_MS + 200, "1" * 16)), "", is_kept=True)
    assert desk.calls.end(event("claude", 1, NOW_MS + 60_500, "3" * 16), "")
    desk.flush()
    found = sorted((row.created_at_ms - NOW_MS, row.duration_ms) for row in desk.stored.values())
    assert found == [(0, 200), (60_000, 500)]


def test_a_beginning_that_was_kept_is_of_the_call_whose_end_the_door_had(desk):
    """A person was asked for a minute between them."""
    ends = event("claude", 1, NOW_MS + 60_000, "1" * 16)._replace(duration_ms=100)
    assert desk.calls.end(ends, "")
    assert not desk.calls.begin(kept(event("claude", 0, NOW_MS, "0" * 16)), "", is_kept=True)
    desk.flush()
    assert not desk.calls.begin(kept(event("claude", 0, NOW_MS, "0" * 16)), "", is_kept=True)
    assert len(desk.stored) == 1


def test_one_id_with_other_arguments_is_another_call_though_the_first_never_ended(desk):
    assert desk.calls.begin(event("claude", 0, NOW_MS), "")
    restart(desk)
    assert not desk.calls.begin(event("claude", 0, NOW_MS + 10), "")
    assert desk.calls.begin(event("claude", 0, NOW_MS + 20, command="pwd"), "")
    assert desk.calls.end(event("claude", 1, NOW_MS + 30, command="pwd"), "")
    desk.flush()
    assert sorted(row.outcome == 0 or bool(row.error) for row in desk.stored.values()) == [False, True]


def test_calls_without_ids_are_told_apart_by_their_arguments_also_after_a_restart(desk):
    for number, command in enumerate(("ls", "pwd")):
        assert desk.calls.begin(event("gemini", 0, NOW_MS + number, command=command), "")
    restart(desk)
    assert desk.calls.end(event("gemini", 1, NOW_MS + 500, command="pwd"), "")
    desk.flush()
    (row,) = desk.stored.values()
    assert (row.created_at_ms, row.duration_ms) == (NOW_MS + 1, 499)


def test_what_is_told_together_waits_for_the_disk_once(desk, monkeypatch):
    syncs: list[int] = []
    monkeypatch.setattr("os.fsync", syncs.append)
    with desk.calls.together():
        for number in range(100):
            assert desk.calls.begin(event("gemini", 0, NOW_MS + number, f"{number:016x}"), "", is_kept=True)
        assert not syncs
    assert len(syncs) == 1
    restart(desk)
    assert desk.calls.waiting() == 100


@pytest.mark.parametrize("other_first", [False, True])
def test_what_a_disk_failed_to_take_is_written_again_before_it_is_told_as_taken(desk, monkeypatch, other_first):
    """Linux drops what it could not write, and the next fsync succeeds."""
    begins, path = event("gemini", 0, NOW_MS, "0" * 16), desk.folder / "calls-0.log"
    size = path.stat().st_size

    def dropped(fd: int) -> None:
        os.truncate(path, size)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", dropped)
        with pytest.raises(OSError, match="Input/output"), desk.calls.together():
            desk.calls.begin(begins, "", is_kept=True)
    if other_first:  # of which the disk is waited for too
        assert desk.calls.begin(event("gemini", 0, NOW_MS + 9_000, "1" * 16, command="pwd"), "")
    with desk.calls.together():
        assert not desk.calls.begin(begins, "", is_kept=True)
    restart(desk)
    assert desk.calls.waiting() == 1 + other_first


def test_a_file_whose_name_the_disk_did_not_take_is_written_anew_before_anything_is_told_as_taken(desk, monkeypatch):
    monkeypatch.setattr("intake_svc.calls.journal.MAX_BYTES", 0)
    path = desk.folder / "calls-0.log"
    with monkeypatch.context() as broken:
        broken.setattr("intake_svc.calls.journal.sync_folder", lambda _: Path("/nonexistent").stat())
        with suppress(OSError):
            desk.journal.finish("a-row", ["told"])
    inode = path.stat().st_ino
    with desk.calls.together():
        pass
    assert path.stat().st_ino != inode


def kept_lines(folder: Path, count: int) -> None:
    """As many calls as hooks kept while there was no door."""
    for number in range(count):
        for step in (0, 1):
            one = event("claude", step, NOW_MS + step, f"{2 * number + step:016x}")
            line = one._replace(session=f"s-{number}", call_id=f"t-{number}").to_line()
            with (folder / "kept").open("a", encoding="ascii") as file:
                file.write(line)


@pytest.mark.long
def test_a_long_time_without_a_door_is_handed_over_in_pieces_and_none_is_taken_twice(house, tmp_path, monkeypatch):
    house.start_audit()
    door = house.start_door(INTAKE_JOIN_SECONDS="0.2")
    kept_lines(tmp_path, 900)
    size = (tmp_path / "kept").stat().st_size
    assert size > 2 * PIECE_BYTES
    monkeypatch.setenv("ONRECORD_HOOK_DIR", str(tmp_path))
    options = Options(["claude", "--door", door.http])
    sent: list[int] = []

    def post_but_the_second(options: Options, path: str, body: bytes, headers: str = "") -> bytes:
        sent.append(len(body))
        if len(sent) == 2:
            raise NotTaken("the door is away again")
        return post(options, path, body, headers)

    monkeypatch.setattr("intake_svc.hooks.kept.post", post_but_the_second)
    hand_over(options)
    assert (tmp_path / "sending").stat().st_size == size
    while (tmp_path / "sending").exists():
        hand_over(options)
    assert max(sent) < PIECE_BYTES + 1_000
    assert sum(sent) - sent[1] == size
    wait_for(lambda: len(house.rows()) == 900)


def test_the_event_loop_does_not_wait_for_the_spool_to_count_what_hooks_lost(desk):
    counted: list[tuple[int, str]] = []
    spool = SimpleNamespace(note_lost=lambda rows, _: counted.append((rows, threading.current_thread().name)))
    record, stops = cast(Record, SimpleNamespace(spool=spool)), Stops(None, desk.folder)
    hooks = Hooks(record, desk.calls, SessionLabels(), stops, DoorMetrics(CollectorRegistry()))
    asyncio.run(hooks.take_kept(event("claude", 0, NOW_MS, "0" * 16).to_line().encode(), 3))
    hooks.close()
    assert counted == [(3, "hooks_0")]


def test_an_events_id_is_its_callers_own(desk):
    assert desk.calls.begin(event("claude", 0, NOW_MS, "0" * 16), "ada")
    assert desk.calls.begin(event("claude", 0, NOW_MS, "0" * 16), "grace")


def test_a_full_disk_refuses_what_it_cannot_keep_and_changes_nothing(tmp_path):
    with mounted_at(tmp_path / "disk") as disk:
        desk = Desk(disk)
        desk.calls = Calls(desk.journal, ARGS_KEY, 0.0, 60.0)
        try:
            assert desk.calls.begin(event("claude", 0, NOW_MS, "0" * 16), "")
            filling = hog(disk)
            taken = 1
            with suppress(OSError):
                while taken < 100:  # there is room in the last page
                    desk.calls.begin(event("gemini", 0, NOW_MS + taken, f"{taken:016x}"), "")
                    taken += 1
            assert taken < 100
            refused = event("gemini", 0, NOW_MS + taken, f"{taken:016x}")
            with pytest.raises(OSError, match="No space left"):
                desk.calls.end(event("claude", 1, NOW_MS + 900, "f" * 16), "")
            assert desk.calls.waiting() == taken
            restart(desk)  # with no room for a file written anew
            assert desk.calls.waiting() == taken
            with pytest.raises(OSError, match="No space left"):
                desk.calls.begin(refused, "")
            filling.unlink()
            assert desk.calls.begin(kept(refused), "", is_kept=True)
            assert desk.calls.end(event("claude", 1, NOW_MS + 900, "f" * 16), "")
            restart(desk)
            assert desk.calls.waiting() == taken + 1
            desk.flush()
            assert [row.duration_ms for row in desk.stored.values()] == [900]
        finally:
            desk.journal.close()


def test_a_file_that_could_not_be_opened_anew_is_refused_and_opened_later(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    calls = Calls(journal, None, 0.0, 60.0)
    monkeypatch.setattr("intake_svc.calls.journal.MAX_BYTES", 0)
    with monkeypatch.context() as broken:
        broken.setattr("intake_svc.calls.journal.sync_folder", lambda _: Path("/nonexistent").stat())
        journal.finish("a-row", ["told"])
    assert calls.begin(event("claude", 0, NOW_MS), "")
    journal.close()
    found = Journal(tmp_path)
    assert (len(found.calls), list(found.done)) == (1, ["told"])
    found.close()


@pytest.mark.long
def test_a_full_disk_of_the_agents_leaves_no_part_of_a_line_and_is_told(tmp_path):
    with mounted_at(tmp_path / "disk") as disk:
        assert hook("127.0.0.1:1", before("s"), folder=disk).returncode == 0
        filling = hog(disk)
        said = [hook("127.0.0.1:1", before("s"), folder=disk)]
        while not said[-1].stderr:
            said.append(hook("127.0.0.1:1", before("s"), folder=disk))
            assert len(said) < 40
        assert {one.returncode for one in said} == {0}
        assert b"not on the record" in said[-1].stderr
        filling.unlink()
        assert not hook("127.0.0.1:1", before("s"), folder=disk).stderr
        lines = (disk / "kept").read_bytes().splitlines()
        counted = (disk / "lost").stat().st_size if (disk / "lost").exists() else 0
        assert all(from_line(line).session == "s" for line in lines)
        assert len(lines) + counted == len(said) + 1  # all but the last, which was told


@pytest.mark.long
def test_a_hook_is_answered_that_a_full_disk_has_not_its_call_and_hands_it_over_later(house):
    house.start_audit()
    folder = house.folder / "kept-here"
    with mounted_at(house.state / "hooks") as disk:
        door = house.start_door(INTAKE_JOIN_SECONDS="0.2")
        filling = hog(disk)
        sessions = [f"s-{number}" for number in range(40)]
        for session in sessions:
            said = hook(door.http, before(session), folder=folder)
            assert (said.returncode, said.stdout) == (0, b"")
            if (folder / "kept").exists():
                break
        asked = sessions[: sessions.index(session) + 1]
        strict = hook(door.http, before("s-strict"), "--mode", "strict", folder=folder)
        assert json.loads(strict.stdout)["hookSpecificOutput"]["permissionDecision"] == "deny"
        filling.unlink()
        for session in asked:
            hook(door.http, after(session), folder=folder)
        wait_for(lambda: {row["session_id"] for row in house.rows()} >= set(asked))
        assert [len(rows_of(house, session)) for session in asked] == [1] * len(asked)
        assert not (folder / "kept").exists()
        assert not [row for row in house.rows() if row["tool_name"] == "onrecord.gap"]
        door.service.terminate()
