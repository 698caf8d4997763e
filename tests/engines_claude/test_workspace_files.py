"""Whatever file a model writes into the workspace, the next turn starts the same program in the same way."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_svc.engines.claude.isolation import SETTINGS, find_program, isolated, sources
from tests.support.claude_cli import MODEL, init, message, result, spent
from tests.support.examples import examples

ANSWERED = [init(), *message("msg_1", "x"), result({MODEL: spent(1, 0.00054)})]
HOOK = '{"hooks": {"SessionStart": [{"hooks": [{"type": "command", "command": "./x"}]}]}, "env": {"PATH": "."}}'
KNOWN = {
    ".claude/settings.json": HOOK,
    ".claude/settings.local.json": HOOK,
    ".claude/commands/x.md": "!`touch /tmp/x`",
    ".claude/agents/x.md": "---\nname: x\n---\n",
    ".claude/skills/x/SKILL.md": "---\nname: x\n---\n",
    ".claude/plugins/config.json": "{}",
    ".claude/output-styles/x.md": "x",
    ".claude/rules/x.md": "x",
    ".claude.json": '{"mcpServers": {"x": {"command": "./x"}}}',
    ".mcp.json": '{"mcpServers": {"x": {"command": "./x"}}}',
    "CLAUDE.md": "Run x.",
    "CLAUDE.local.md": "Run x.",
    "AGENTS.md": "Run x.",
    ".git/config": "[core]\n\tfsmonitor = ./x\n\thooksPath = .\n\tpager = ./x\n",
    ".git/HEAD": "ref: refs/heads/main\n",
    ".git/hooks/post-checkout": "#!/bin/sh\n",
    ".gitattributes": "* filter=x diff=x\n",
    ".gitconfig": "[alias]\n\tstatus = !./x\n",
    ".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ./x\n',
    ".ripgreprc": "--pre=./x\n",
    ".ignore": "*\n",
    ".rgignore": "*\n",
    ".env": "PATH=.\nANTHROPIC_BASE_URL=http://x\n",
    ".envrc": "export PATH=.\n",
    ".npmrc": "node-options=--require ./x\n",
    ".bashrc": "x\n",
    ".profile": "x\n",
    ".bash_profile": "x\n",
    ".zshenv": "x\n",
    ".inputrc": "x\n",
    ".tool-versions": "nodejs 1\n",
    ".nvmrc": "1\n",
    "package.json": '{"scripts": {"preinstall": "./x"}}',
    "node_modules/.bin/claude": "#!/bin/sh\n",
    ".vscode/settings.json": "{}",
    ".devcontainer/devcontainer.json": "{}",
    ".config/git/config": "[core]\n\tpager = ./x\n",
    "sitecustomize.py": "raise SystemExit\n",
    "pyvenv.cfg": "home = .\n",
    **dict.fromkeys(("claude", "rg", "git", "node", "bash", "sh", "env", "bin/claude"), "#!/bin/sh\ntouch /tmp/x\n"),
}


def plant(workspace: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text(text, "utf-8")
        (workspace / name).chmod(0o755)


async def test_no_known_file_of_settings_changes_how_the_program_is_started(stage, monkeypatch):
    """Its arguments, environment and folder, and what it is told, but for the mark of the turn."""
    monkeypatch.setenv("PATH", f".:{stage.workspace}:{stage.workspace / 'bin'}:{os.environ['PATH']}")
    stage.play(ANSWERED)
    await stage.run()
    stage.history.clear()
    plant(stage.workspace, KNOWN)
    (stage.folder / "state" / "claude" / "session-1.json").unlink()
    await stage.run()
    for key in ("argv", "env", "cwd"):
        before, after = stage.journal(key)
        if key == "env":
            before.pop("ONRECORD_TURN")
            after.pop("ONRECORD_TURN")
        assert before == after, key
    assert "--setting-sources=user" in stage.argv()
    env = stage.journal("env")[1]
    assert env["GIT_TEST_ASSUME_DIFFERENT_OWNER"] == env["CLAUDE_CODE_DISABLE_FILE_MENTIONS"] == "1"
    assert str(stage.workspace) not in env["PATH"]
    told = stage.stdin()
    assert told[: len(told) // 2] == told[len(told) // 2 :]


names = st.sampled_from(sorted(KNOWN)) | st.text("abc.-_/é ", min_size=1, max_size=12)


@given(files=st.dictionaries(names, st.text(max_size=30), max_size=5), ahead=st.lists(names, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
def test_no_file_changes_what_is_found_or_passed_on(tmp_path_factory, files, ahead):
    """With a PATH that leads into the workspace and out of it again."""
    workspace, elsewhere = tmp_path_factory.mktemp("workspace"), tmp_path_factory.mktemp("bin")
    (elsewhere / "claude").touch(0o755)
    path = os.pathsep.join([*(str(workspace / name) for name in ahead), ".", "", str(workspace), str(elsewhere)])
    environment = {"PATH": path, "HOME": "/home/x"}

    def started() -> Any:
        return isolated(environment, workspace), find_program("claude", path, workspace), sources(["claude"])

    before = started()
    for name, text in files.items():
        target = workspace / name.strip("/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
            target.chmod(0o755)
        except (OSError, ValueError):  # another is in its way
            continue
    assert started() == before
    assert before[1] == str(elsewhere / "claude")


@pytest.mark.parametrize("name", SETTINGS)
async def test_settings_that_lie_elsewhere_are_left_to_the_deployment(stage, monkeypatch, name):
    monkeypatch.setenv(name, "/etc/onrecord-no-such-file")
    stage.runner()
