"""What runs on a folder is known by who holds its lock, and never by a file that was left."""

import errno
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import pytest

from onrecord_cli import commands, pair
from onrecord_cli.folder import AlreadyRuns, Running, find, held, state_folder, tell, tell_end, why_ended
from service_kit.terminal.failures import Failed
from tests.support.command_line import invoke
from tests.support.forked import run_command

RUNNING = Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:2")
HOLDER = """
import os, sys, time
from pathlib import Path
from onrecord_cli.folder import Running, held, tell
with held(Path(sys.argv[1])):
    tell(Path(sys.argv[1]), Running(os.getpid(), "127.0.0.1:1"))
    print("told", flush=True)
    time.sleep(600)
"""


@pytest.mark.long
def test_what_is_told_counts_while_the_lock_is_held(tmp_path):
    folder = tmp_path / "new" / "state"
    assert find(folder) is None
    with held(folder):
        assert find(folder) is None
        tell(folder, RUNNING)
        assert find(folder) == RUNNING
        with pytest.raises(AlreadyRuns), held(folder):
            pass
        assert find(folder) == RUNNING
    assert find(folder) is None
    assert folder.stat().st_mode & 0o077 == 0


def test_what_a_killed_process_told_does_not_count(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout
    with holder, holder.stdout:
        assert holder.stdout.readline() == b"told\n"
        found = find(tmp_path)
        assert found
        assert found.pid == holder.pid
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / "running.json").exists()
    assert find(tmp_path) is None
    with held(tmp_path):
        assert find(tmp_path) is None


def test_why_it_ended_is_told_until_it_runs_again(tmp_path):
    with held(tmp_path):
        tell(tmp_path, RUNNING)
        assert why_ended(tmp_path, RUNNING) == ""
        tell_end(tmp_path, "the ledger was killed")
    other = RUNNING._replace(pid=1, command="onrecord run")
    untold = "`onrecord run`, which had started it, has ended, or was killed"
    for running, why in ((RUNNING, "the ledger was killed"), (other, untold)):
        assert why_ended(tmp_path, running) == why
    with held(tmp_path):
        tell(tmp_path, RUNNING)
        assert why_ended(tmp_path, RUNNING) == ""


@pytest.mark.long
def test_that_what_runs_is_ending_is_said_where_nobody_listens_any_more(tmp_path):
    home = {"ONRECORD_STATE_DIR": str(tmp_path)}
    running = Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:1")
    with held(tmp_path):
        tell(tmp_path, running)
        tell_end(tmp_path, running.ended("was told to end"))
        ends = "`onrecord up`, which had started it, was told to end; try again in a moment\n"
        for words in (["engines"], ["calls"]):
            ended = run_command("onrecord_cli", home, *words)
            assert (ended.returncode, ended.stderr) == (1, f"nobody listens on 127.0.0.1:1 any more: {ends}")
        ended = run_command("onrecord_cli", home, "up")
        assert (ended.returncode, ended.stderr) == (1, f"what ran on {tmp_path} is shutting down: {ends}")


def test_a_file_that_is_none_of_ours_is_nothing_that_runs(tmp_path):
    with held(tmp_path):
        for text in ("", "[]", '{"pid": 1}', '{"pid": 1, "ledger": "", "more": ""}', "\xff"):
            (tmp_path / "running.json").write_text(text, encoding="latin-1")
            assert find(tmp_path) is None


def test_the_folder_is_where_a_users_data_is(monkeypatch, tmp_path):
    for name in ("ONRECORD_STATE_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local/share/onrecord"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert state_folder() == tmp_path / ".local/share/onrecord"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert str(state_folder()) == "/data/onrecord"
    monkeypatch.setenv("ONRECORD_STATE_DIR", "~/mine")
    assert state_folder() == tmp_path / "mine"


@pytest.mark.long
def test_where_a_port_is_taken_just_before_its_service_listens_all_listen_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(pair, "_is_free", lambda port: True)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another program has it: as good
            other.bind(("127.0.0.1", 50052))
            other.listen()
        with pair.started(tmp_path, pair.Plan({}, gateway=False, door=False)) as services:
            assert services.running.ledger.startswith("127.0.0.1:")
            assert not services.running.ledger.endswith(":50052")


def test_a_workspace_that_is_not_there_is_refused(tmp_path):
    from onrecord_cli.__main__ import program

    environ = {"ONRECORD_STATE_DIR": str(tmp_path / "state")}
    ended = invoke(program, ["up", "--workspace", str(tmp_path / "none")], environ)
    assert ended.exit_code == 2
    assert f"--workspace: {tmp_path / 'none'} is not a folder" in ended.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("words", [("up", "--no-gateway"), ("run", "hi"), ("agents", "setup", "claude", "--write")])
def test_a_home_that_cannot_be_written_is_told_in_a_sentence(words):
    """The first that cannot be made is the home, which is above the folder."""
    home = {"HOME": "/proc/nope", "XDG_DATA_HOME": "", "OPENAI_API_KEY": "sk-x"}
    ended = run_command("onrecord_cli", home, *words)
    told = ended.stderr.splitlines()[-1]
    assert (ended.returncode, told) == (1, "/proc/nope cannot be used: No such file or directory")


def test_a_failure_at_a_folder_beside_is_none_of_the_folder(tmp_path):
    for name, raised in (("onrecord", Failed), ("onrecord/audit/audit.db", Failed), ("onrecord-2", OSError)):
        with pytest.raises(raised), commands._failures_are_sentences(tmp_path / "onrecord"):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / name))


@pytest.mark.parametrize("option", ["--gemma", "--workspace=."])
def test_what_starts_services_is_refused_by_its_name_where_they_run(option):
    from onrecord_cli.__main__ import program

    ended = invoke(program, ["run", "hi", "--target", "127.0.0.1:1", option])
    assert ended.exit_code == 2
    said = f"{option.partition('=')[0]}: is for services that this command starts, and they run already"
    assert ended.stderr.splitlines()[-1] == f"onrecord run: {said}"


def test_an_agents_configuration_that_names_passing_ports_is_warned_of(tmp_path):
    words = ("agents", "setup", "claude", "--write", "--home", str(tmp_path))
    for door, warned in (("127.0.0.1:41317", True), ("127.0.0.1:4317", False)):
        with held(tmp_path / "state"):
            running = Running(os.getpid(), "127.0.0.1:1", door=door, door_http="127.0.0.1:4318")
            tell(tmp_path / "state", running)
            ended = run_command("onrecord_cli", {"ONRECORD_STATE_DIR": str(tmp_path / "state")}, *words)
        assert ended.returncode == 0, ended.stderr
        assert ("something else holds 4317:" in " ".join(ended.stderr.split())) is warned
