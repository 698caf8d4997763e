"""What models write into the workspace, and what clients say, is neither configuration nor command to the program."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.engines.claude.isolation import GIT, SETTINGS, find_program, isolated, outside
from gateway_svc.engines.claude.prompt import ANSWER, BEFORE, GO_ON, NOTHING, prompt
from gateway_svc.errors import SettingsError
from gateway_svc.messages import AssistantMessage, UserMessage
from gateway_svc.programs import installed
from gateway_svc.turns.account import TurnAccount
from gateway_svc.turns.events import TurnEvents
from gateway_svc.turns.turn import Turn
from recording.calls import Scope
from tests.support import claude_cli
from tests.support.claude_cli import MODEL, init, message, result, spent

ANSWERED = [init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)})]


async def test_only_the_user_s_settings_are_read(stage):
    stage.play(ANSWERED)
    await stage.run()
    assert "--setting-sources=user" in stage.argv()


async def test_a_deployment_that_trusts_its_workspace_says_so_in_the_command(stage):
    stage.play(ANSWERED)
    scripted = [sys.executable, str(Path(claude_cli.__file__)), str(stage.folder)]
    await stage.run(runner=stage.runner(command=shlex.join([*scripted, "--setting-sources=user,project"])))
    assert [part for part in stage.argv() if "sources" in part] == ["--setting-sources=user,project"]


async def test_the_program_is_told_to_read_no_file_that_an_input_names_and_to_keep_no_memory(stage):
    stage.play(ANSWERED)
    await stage.run()
    (env,) = stage.journal("env")
    assert env["CLAUDE_CODE_DISABLE_FILE_MENTIONS"] == env["CLAUDE_CODE_DISABLE_AUTO_MEMORY"] == "1"


async def test_git_is_told_that_repositories_of_the_workspace_are_strangers(stage, monkeypatch):
    """Behind what the deployment has set for git itself."""
    for name, value in {"COUNT": "1", "KEY_0": "user.name", "VALUE_0": "bot"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    stage.play(ANSWERED)
    await stage.run()
    (env,) = stage.journal("env")
    count = int(env["GIT_CONFIG_COUNT"])
    told = {env[f"GIT_CONFIG_KEY_{index}"]: env[f"GIT_CONFIG_VALUE_{index}"] for index in range(count)}
    assert told == {"user.name": "bot", **GIT}
    assert env["GIT_TEST_ASSUME_DIFFERENT_OWNER"] == "1"


def test_a_program_is_never_found_in_the_workspace(tmp_path, monkeypatch):
    """Neither by a relative PATH, which would mean the workspace once the program runs there, nor by a link."""
    workspace, elsewhere = tmp_path / "workspace", tmp_path / "bin"
    for folder in (workspace, elsewhere):
        folder.mkdir()
    planted = workspace / "claude"
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o755)
    monkeypatch.chdir(workspace)
    path = os.pathsep.join(["", ".", str(workspace), f"{elsewhere}/../workspace", str(elsewhere)])
    assert outside(path, workspace) == [str(elsewhere)]
    assert isolated({"PATH": path}, workspace)["PATH"] == str(elsewhere)
    (elsewhere / "claude").symlink_to(planted)
    with pytest.raises(FileNotFoundError):
        find_program("claude", path, workspace)
    (elsewhere / "claude").unlink()
    (elsewhere / "claude").touch(0o755)
    assert find_program("claude", path, workspace) == str(elsewhere / "claude")
    assert find_program("./claude", path, workspace) == str(planted)


@pytest.mark.parametrize("name", ["rg", "bwrap", "bash"])
def test_no_tool_s_program_is_found_by_a_relative_path(tmp_path, monkeypatch, name):
    """It would be looked up again in the folder that it is started in."""
    (tmp_path / name).touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".:{os.pathsep}")
    assert installed(name) is None


@pytest.mark.parametrize("name", ["HOME", *SETTINGS])
@pytest.mark.parametrize("place", ["", "sub", "relative"])
async def test_a_workspace_that_holds_the_user_s_settings_is_refused(stage, monkeypatch, name, place):
    monkeypatch.setenv(name, "relative" if place == "relative" else str(stage.workspace / place))
    with pytest.raises(SettingsError, match=f"{name}: must be absolute and not lie in GATEWAY_WORKSPACE"):
        stage.runner()


async def test_a_program_in_the_workspace_is_refused(stage):
    with pytest.raises(SettingsError, match=r"GATEWAY_CLAUDE_COMMAND: .* must not lie in GATEWAY_WORKSPACE"):
        stage.runner(command=str(stage.workspace / "bin" / "claude"))


COMMANDS = st.sampled_from(
    ["/clear", "/compact", " /clear", "\n/report x", "!ls", "#note", "@/etc/passwd", "/", "ultrathink", ""]
)


@given(
    text=COMMANDS | st.text(), earlier=st.lists(COMMANDS | st.text(max_size=20), max_size=3), known=st.integers(0, 4)
)
def test_no_input_stands_where_the_program_reads_commands(text, earlier, known):
    """That is the last text of a message. What was said stands whole before it, and no text is empty."""
    history = [message for said in earlier for message in (UserMessage(said), AssistantMessage(said))]
    for last in (UserMessage(text), AssistantMessage(text)):
        events = TurnEvents()
        turn = Turn(
            Scope("s", "claude", "m", "t"), "", [*history, last], lambda _: None, events, TurnAccount(events.warn)
        )
        *before, end = [block["text"] for block in prompt(turn, known)["message"]["content"]]
        assert end == (ANSWER if isinstance(last, UserMessage) else GO_ON)
        if isinstance(last, UserMessage):
            assert before.pop() == (text if text.strip() else NOTHING)
        assert all(told.startswith(BEFORE) for told in before)
