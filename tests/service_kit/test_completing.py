"""What a shell completes."""

import os
import shutil
import subprocess
import sys

import pytest

import audit_svc.__main__
import onrecord_cli.__main__
from demo.processes import REPOSITORY
from tests.support.command_line import invoke

PROGRAM = onrecord_cli.__main__.program


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["appro"], ["approvals", "approve"]),
        (["--tok"], ["--token-file"]),
        (["calls", "--ou"], ["--outcome"]),
        (["calls", "--tok"], ["--token-file"]),
        (["calls", "--outcome", "t"], ["timed_out"]),
        (["calls", "--json", "--outcome", "t"], ["timed_out"]),
        (["usage", "--order", ""], ["value", "cost"]),
        (["calls", "--json", "t"], []),
        (["agents", ""], ["setup"]),
        (["agents", "setup", "c"], ["claude", "codex", "copilot", "cursor"]),
        (["agents", "setup", "claude", "--und"], ["--undo"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["nothing", "x"], []),
    ],
)
def test_commands_options_and_values_are_completed(words, wanted):
    assert invoke(PROGRAM, ["--complete", *words]) == (0, "".join(f"{each}\n" for each in wanted), "")


def test_all_commands_are_named_where_nothing_is_typed():
    assert invoke(PROGRAM, ["--complete"]).stdout.split() == list(PROGRAM.root.commands)
    assert "worker" not in invoke(PROGRAM, ["--complete", ""]).stdout


def test_where_no_ledger_answers_nothing_is_said(tmp_path):
    gone = {"ONRECORD_DB": str(tmp_path / "none.db")}
    assert invoke(audit_svc.__main__.program, ["--complete", "calls", "--tool", ""], gone) == (0, "", "")
    assert invoke(audit_svc.__main__.program, ["--complete", "show", ""], gone) == (0, "@last\n", "")


SHELLS = {
    "bash": 'eval "$(onrecord completion bash)"; COMP_WORDS=(onrecord agents setup co); COMP_CWORD=3; _onrecord; '
    'printf "%s\\n" "${COMPREPLY[@]}"',
    "zsh": 'compdef() { :; }; compadd() { print -l -- ${(P)2}; }; eval "$(onrecord completion zsh)"; '
    "words=(onrecord agents setup co); CURRENT=4; _onrecord",
    "fish": 'onrecord completion fish | source; complete -C "onrecord agents setup co"',
}


@pytest.mark.long
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_evaluates_the_script_completes(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "onrecord"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m onrecord_cli "$@"\n')
    program.chmod(0o755)
    paths = [str(REPOSITORY), str(REPOSITORY / "protos"), str(REPOSITORY / "clients/python/lib")]
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    said = subprocess.run(
        [shell, "-c", SHELLS[shell]], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["codex", "copilot"], said.stderr
