"""`intake-svc setup`: what is there stays, twice is once, and undoing gives the bytes that were."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from intake_svc.__main__ import program
from intake_svc.setup.agents import AGENTS, Wanted, files_of
from intake_svc.setup.merging import CannotMerge, undo, write
from tests.support.command_line import invoke

WANTED = Wanted("127.0.0.1:4317", "127.0.0.1:4318", ("/opt/bin/onrecord-hook",), ("--mode", "strict"))
THERE = {
    ".claude/settings.json": '{\n    "model": "opus",\n    "env": {"FOO": "ü"},\n    "hooks": {"PreToolUse": '
    '[{"matcher": "Bash", "hooks": [{"type": "command", "command": "mine"}]}]}\n}',
    ".gemini/settings.json": '{\n\t"theme": "Dracula",\n\t"telemetry": {"enabled": true}\n}\n',
    ".codex/config.toml": '# mine\nmodel = "gpt-5"   # keep\n\n[[hooks.PreToolUse]]\n[[hooks.PreToolUse.hooks]]\n'
    'type = "command"\ncommand = "mine"\n',
    ".cursor/hooks.json": '{"version": 1, "hooks": {"preToolUse": [{"command": "mine"}], "stop": []}}',
    ".config/opencode/opencode.json": '{"theme": "x"}\n',
}


@pytest.fixture(params=[False, True], ids=["new", "there"])
def home(request: Any, tmp_path: Path) -> Path:
    for name, text in THERE.items() if request.param else ():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def all_files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def all_folders(home: Path) -> set[Path]:
    return {path for path in home.rglob("*") if path.is_dir()}


@pytest.mark.parametrize("agent", AGENTS)
def test_written_twice_is_once_and_undone_is_as_it_was(agent, home):
    before, folders = all_files(home), all_folders(home)
    files = files_of(agent, WANTED, home)
    assert all(write(file) for file in files)
    written = all_files(home)
    assert not any(write(file) for file in files)
    assert all_files(home) == written
    assert all(
        "onrecord-hook" in file.path.read_text("utf-8") or "openTelemetry" in file.path.read_text("utf-8")
        for file in files
    )
    assert all(undo(file) for file in reversed(files))
    assert all_files(home) == before
    assert all_folders(home) == folders
    assert not any(undo(file) for file in files)


def test_what_is_there_stays(home):
    (file,) = files_of("claude", WANTED, home)
    was = json.loads(file.path.read_text("utf-8")) if file.path.exists() else {}
    write(file)
    settings = json.loads(file.path.read_text("utf-8"))
    assert settings.get("model") == was.get("model")
    assert settings["env"]["OTEL_LOG_USER_PROMPTS"] == "0"
    assert settings["env"].get("FOO") == was.get("env", {}).get("FOO")
    commands = [hook["command"] for group in settings["hooks"]["PreToolUse"] for hook in group["hooks"]]
    assert commands[-1].startswith("/opt/bin/onrecord-hook claude --door 127.0.0.1:4318 --mode strict")
    assert ("mine" in commands) == bool(was)


@pytest.mark.parametrize("agent", ["claude", "gemini", "codex"])
def test_undoing_keeps_what_came_since(agent, home):
    (file,) = files_of(agent, WANTED, home)
    write(file)
    if file.how == "json":
        changed = json.loads(file.path.read_text("utf-8")) | {"later": 1}
        file.path.write_text(json.dumps(changed), "utf-8")
        undo(file)
        left = json.loads(file.path.read_text("utf-8"))
        assert left.pop("later") == 1
        assert left == (
            json.loads(THERE[str(file.path.relative_to(home))]) if "model" in left or "theme" in left else {}
        )
    else:
        file.path.write_text(file.path.read_text("utf-8") + "\n[later]\nx = 1\n", "utf-8")
        undo(file)
        left = tomllib.loads(file.path.read_text("utf-8"))
        assert left.pop("later") == {"x": 1}
        assert "otel" not in left


def test_a_file_that_another_chose_otherwise_is_left_alone(tmp_path):
    (file,) = files_of("claude", WANTED, tmp_path)
    file.path.parent.mkdir()
    for text in ('{"env": {"OTEL_LOGS_EXPORTER": "console"}}', "{ // mine\n}", "[]", '{"hooks": []}'):
        file.path.write_text(text, "utf-8")
        with pytest.raises(CannotMerge):
            write(file)
        assert all_files(tmp_path) == {".claude/settings.json": text.encode()}
    (codex,) = files_of("codex", WANTED, tmp_path)
    codex.path.parent.mkdir()
    codex.path.write_text("[otel]\nenvironment = 'x'\n", "utf-8")
    with pytest.raises(CannotMerge):
        write(codex)


def test_a_link_stays_a_link_and_the_mode_stays(tmp_path):
    real = tmp_path / "dotfiles.json"
    real.write_text("{}\n", "utf-8")
    real.chmod(0o640)
    (file,) = files_of("claude", WANTED, tmp_path)
    file.path.parent.mkdir()
    file.path.symlink_to(real)
    write(file)
    assert file.path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    undo(file)
    assert real.read_text("utf-8") == "{}\n"


def test_undo_after_an_edit_takes_out_hooks_of_whatever_options(tmp_path):
    path = tmp_path / ".claude/settings.json"
    path.parent.mkdir(parents=True)
    path.write_text('{\n  "model": "a"\n}\n', "utf-8")
    (file,) = files_of("claude", WANTED, tmp_path)
    write(file)
    path.write_text(path.read_text("utf-8").replace('"model": "a"', '"model": "b"'), "utf-8")
    (plain,) = files_of("claude", Wanted("127.0.0.1:4317", "127.0.0.1:4318", ("/opt/bin/onrecord-hook",)), tmp_path)
    assert undo(plain)
    assert json.loads(path.read_text("utf-8")) == {"model": "b"}


@pytest.mark.parametrize("content", [None, "not toml"])
def test_rules_that_hooks_could_not_use_are_refused(tmp_path, content):
    rules = tmp_path / "rules.toml"
    if content:
        rules.write_text(content, "utf-8")
    done = invoke(program, ["setup", "claude", "--write", "--rules", str(rules), "--home", str(tmp_path)])
    assert done.exit_code == 2
    assert "--rules" in done.stderr
    assert not (tmp_path / ".claude").exists()


def test_a_folder_that_somebody_uses_by_now_stays(tmp_path):
    files = files_of("claude", WANTED, tmp_path)
    assert all(write(file) for file in files)
    (tmp_path / ".claude" / "theirs").touch()
    assert all(undo(file) for file in files)
    assert all_files(tmp_path) == {".claude/theirs": b""}
