"""What whoever may read the state directory is shown of the sessions in it."""

import json
from pathlib import Path

import pytest

from gateway_svc.__main__ import program
from tests.conversations.test_files import SAID, file_of, made, records_of
from tests.support.command_line import Result, invoke


@pytest.fixture(autouse=True)
def state_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))


def sessions(*arguments: str) -> Result:
    return invoke(program, ["sessions", *arguments])


def times(folder: Path) -> dict[Path, int]:
    """When each file and each folder was changed last."""
    return {path: path.stat().st_ctime_ns for path in folder.rglob("*")}


async def test_whole_sessions_are_told_as_whole_and_nothing_is_changed(tmp_path):
    for _ in range(3):
        await made(tmp_path, prompt="be brief")
    before = times(tmp_path)
    found = sessions("check")
    assert (found.exit_code, found.output) == (0, "no damage found\n")
    assert times(tmp_path) == before


async def test_a_folder_without_sessions_is_whole_and_stays_as_it_is(tmp_path):
    (tmp_path / "sessions").mkdir()
    assert sessions("check").exit_code == 0
    assert list(tmp_path.rglob("*")) == [tmp_path / "sessions"]


@pytest.mark.parametrize("command", [("check",), ("check", "--json"), ("export", "s-1")])
@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_nothing_is_said_of_a_folder_that_is_no_gateways(tmp_path, monkeypatch, command, folder):
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path / folder))
    done = sessions(*command)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "GATEWAY_STATE_DIR" in done.output
    assert list(tmp_path.iterdir()) == []


async def test_a_part_of_an_id_that_is_too_short_is_told_so(tmp_path):
    session_id = await made(tmp_path)
    found = sessions("export", session_id[-3:])
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.endswith("; a part of an id needs at least 4 characters\n")


async def test_each_damage_is_told_with_its_session(tmp_path):
    ids = [await made(tmp_path) for _ in range(6)]
    files = [file_of(tmp_path, session_id, "conversation") for session_id in ids]
    data = bytearray(files[0].read_bytes())
    data[records_of(files[0])[2][0] + 30] ^= 1
    files[0].write_bytes(data)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].unlink()
    file_of(tmp_path, ids[3], "session").write_bytes(b"")
    file_of(tmp_path, ids[4], "session").unlink()
    found = sessions("check")
    told = {line.split()[2].rstrip(":"): line for line in found.output.splitlines() if "session " in line}
    assert found.exit_code == 1
    assert "damaged" in told[ids[0]]
    assert "no record yet" in told[ids[1]] or "last 1 records" in told[ids[1]]
    assert "all its 6 records are missing" in told[ids[2]]
    assert "its file is damaged" in told[ids[3]]
    assert "belongs to no session" in told[ids[4]]
    assert ids[5] not in told
    lines = [json.loads(line) for line in sessions("check", "--json").output.splitlines()]
    assert {line["session_id"] for line in lines} == set(ids[:5])


async def test_an_export_has_all_that_was_said_and_says_what_is_missing(tmp_path):
    session_id = await made(tmp_path, prompt="be brief")
    lines = [json.loads(line) for line in sessions("export", session_id).output.splitlines()]
    assert lines[0]["session"]["settings"]["system_prompt"] == "be brief"
    assert [next(iter(line)) for line in lines[1:]] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert len(lines) == 1 + len(SAID)
    path = file_of(tmp_path, session_id, "conversation")
    data = bytearray(path.read_bytes())
    data[records_of(path)[2][0] + 30] ^= 1
    path.write_bytes(data)
    lines = [json.loads(line) for line in sessions("export", session_id).output.splitlines()]
    kinds = [next(iter(line)) for line in lines[1:]]
    assert kinds == ["user", "assistant", "damaged", "assistant", "user", "assistant"]


async def test_a_session_is_named_by_a_part_of_its_id_or_as_the_newest(tmp_path):
    first, second = [await made(tmp_path) for _ in range(2)]
    newest = max(first, second)
    for typed, meant in (("@last", newest), (first[-12:], first), (second, second)):
        found = sessions("export", typed)
        assert (found.exit_code, found.stderr) == (0, "")
        assert json.loads(found.stdout.splitlines()[0])["session"]["id"] == meant


def test_an_unknown_session_is_told_so(tmp_path):
    (tmp_path / "sessions").mkdir()
    found = sessions("export", "nobody")
    assert found.exit_code == 1
    assert "session nobody is not known" in found.stderr


@pytest.mark.parametrize("command", [("check",), ("export", "an-id")])
def test_sessions_in_a_database_are_not_taken_for_none(monkeypatch, command):
    monkeypatch.setenv("GATEWAY_SESSIONS", "postgresql://ada@localhost/conversations")
    found = sessions(*command)
    assert found.exit_code == 2
    assert "GATEWAY_SESSIONS: the sessions are in a database" in found.stderr
