"""`onrecord-hook` as a process: with a door, without one, and in between."""

import json
import stat
import subprocess
import sys

import pytest

from demo.processes import ServiceEnded
from intake_svc.setup.command import hook_program
from tests.intake_svc.conftest import open_house
from tests.intake_svc.hooks.test_claude import CANARY, after, before, hook, rows_of
from tests.support.ports import own_port

FORMS = {
    "claude": {"hook_event_name": "PreToolUse"},
    "codex": {"hook_event_name": "PreToolUse"},
    "gemini": {"hook_event_name": "BeforeTool"},
    "copilot": {"hook_event_name": "PreToolUse"},  # in VS Code
    "cursor": {"hook_event_name": "preToolUse"},
    "opencode": {"hook_event_name": "tool.execute.before"},
}


def test_without_a_door_nothing_stands_in_the_way_and_what_is_kept_has_no_content(tmp_path):
    with own_port() as port:
        said = hook(f"127.0.0.1:{port}", before("s-1"), folder=tmp_path)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")
    kept = tmp_path / "kept"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    line = kept.read_text()
    assert CANARY not in line
    assert "ls -l" not in line
    assert json.loads(line)["session"] == "s-1"


@pytest.mark.parametrize("agent", FORMS)
def test_strict_refuses_in_the_agents_form_what_cannot_be_recorded(agent, tmp_path):
    with own_port() as port:
        said = hook(f"127.0.0.1:{port}", before("s-1") | FORMS[agent], "--mode", "strict", agent=agent, folder=tmp_path)
    assert said.returncode == 0
    answer = json.loads(said.stdout)
    assert agent != "copilot" or answer["permissionDecision"] == "deny"  # of Copilot CLI
    answer = answer.get("hookSpecificOutput", answer)
    assert "deny" in (answer.get("permissionDecision"), answer.get("permission"), answer.get("decision"))
    assert CANARY not in said.stdout.decode()


def test_a_broken_event_and_a_wrong_command_line_do_not_stand_in_the_way(tmp_path):
    said = hook("127.0.0.1:1", "no object", folder=tmp_path)
    assert (said.returncode, said.stdout) == (0, b"")
    assert hook("127.0.0.1:1", {}, "--no-such", folder=tmp_path).returncode not in (0, 2)
    assert hook("127.0.0.1:1", {}, "--mode", "best_effort", "-x", folder=tmp_path).returncode not in (0, 2)


@pytest.mark.parametrize("words", [("--mode", "stritc"), ("--mode=",), ("--mod", "strict"), ("--mode", "strict", "-x")])
def test_a_mistyped_strict_refuses(words, tmp_path):
    assert hook("127.0.0.1:1", {}, *words, folder=tmp_path).returncode == 2


@pytest.mark.long
def test_what_was_kept_is_handed_over_by_the_next_run(tmp_path):
    with open_house(tmp_path) as house:
        house.start_audit()
        folder = tmp_path / "kept-here"
        with own_port() as port:
            for event in (before("s-away"), after("s-away")):
                hook(f"127.0.0.1:{port}", event, folder=folder)
            (folder / "lost").write_bytes(b"...")
            door = house.start_door(INTAKE_JOIN_SECONDS="0.2", INTAKE_HTTP_LISTEN=f"127.0.0.1:{port}")
            said = hook(door.http, before("s-back"), folder=folder)
        assert (said.returncode, said.stdout) == (0, b"")
        (row,) = rows_of(house, "s-away")
        assert (row["duration_ms"], row["tool_name"]) == (58, "Bash")
        assert json.loads(row["args_summary"])["$arguments"]["count"] == 2
        assert not (folder / "kept").exists()
        assert not (folder / "lost").exists()


def test_as_setup_has_it_run_it_does_the_same_without_site_packages(tmp_path):
    env = {"PATH": "/usr/bin", "ONRECORD_HOOK_DIR": str(tmp_path)}
    command = [*hook_program(), "claude", "--door", "127.0.0.1:1"]
    event = json.dumps(before("s-bare")).encode()
    said = subprocess.run(command, input=event, env=env, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert (said.stdout, said.stderr) == (b"", b"")
    assert json.loads((tmp_path / "kept").read_text())["session"] == "s-bare"


def test_the_hook_imports_neither_grpc_nor_protobuf_nor_what_the_services_need():
    names = ("grpc", "google", "pydantic", "asyncio", "re", "json")
    code = f"import intake_svc.hooks.client, sys; print([name for name in {names} if name in sys.modules])"
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.long
def test_over_a_unix_socket_that_this_user_alone_can_reach_also_after_a_kill(tmp_path):
    with open_house(tmp_path) as house:
        path = tmp_path / "run" / "hooks.sock"
        door = house.start_door(INTAKE_HOOK_SOCKET=str(path), INTAKE_STATE_DIR=str(tmp_path / "1"))
        door.service.kill()
        assert path.is_socket()
        door = house.start_door(INTAKE_HOOK_SOCKET=str(path), INTAKE_STATE_DIR=str(tmp_path / "2"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        said = hook("127.0.0.1:1", before("s-unix"), "--door", f"unix:{path}", folder=tmp_path / "kept")
        assert (said.returncode, said.stdout, (tmp_path / "kept").exists()) == (0, b"", False)
        with pytest.raises(ServiceEnded, match="Address already in use"):
            house.start_door(INTAKE_HOOK_SOCKET=str(path), INTAKE_STATE_DIR=str(tmp_path / "3"))
        door.service.terminate()
        assert not path.exists()
