"""(m) What a hook costs an agent: `onrecord-hook` as a whole process, with a door and with none.

It is run as `intake-svc setup` has agents run it.

The baseline is the same Python that does nothing, by turns with it: its start is most of the time.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench.figures import Figure, Target, compare_at
from bench.services import closed_port
from demo.processes import REPOSITORY, start_service
from intake_svc.hooks.kept import MAX_BYTES
from intake_svc.setup.command import hook_program

_CALL = {"session_id": "s", "prompt_id": "p", "hook_event_name": "PreToolUse", "tool_name": "Bash"}
_INPUT = {"command": "make test", "description": "x" * 200}
_TARGET = Target(max_ours=50)
_NOTHING = [sys.executable, "-c", "pass"]


def measure(folder: Path, *, short: bool) -> list[Figure]:
    """Milliseconds of a whole process."""
    hook = [*hook_program(), "claude", "--door"]
    state = folder / "hooks"
    figures = []
    settings = {
        "INTAKE_LISTEN": "127.0.0.1:0",
        "INTAKE_HTTP_LISTEN": f"127.0.0.1:{closed_port()}",
        "INTAKE_STATE_DIR": str(folder / "intake"),
        "INTAKE_AUDIT_TARGET": f"127.0.0.1:{closed_port()}",
    }
    env = {"PATH": os.environ["PATH"], "ONRECORD_HOOK_DIR": str(state), "PYTHONPATH": str(REPOSITORY)}
    with start_service("intake_svc", settings, "serve"):
        figures += _by_turns("a hook, with a door", [*hook, settings["INTAKE_HTTP_LISTEN"]], env, short)
    figures += _by_turns("a hook, with no door", [*hook, settings["INTAKE_HTTP_LISTEN"]], env, short)
    kept = (state / "kept").stat().st_size
    assert 0 < kept <= MAX_BYTES, "what no door took was not kept"
    return figures


def _by_turns(name: str, command: list[str], env: Mapping[str, str], short: bool) -> list[Figure]:
    ours, baseline = [], []
    for number in range(100 if short else 400):
        event = json.dumps(_CALL | {"tool_use_id": f"t-{number}", "tool_input": _INPUT}).encode()
        ours.append(_milliseconds(command, event, env))
        baseline.append(_milliseconds(_NOTHING, b"", env))
    return [
        compare_at(name, "ms", 50, ours, baseline, None),
        compare_at(name, "ms", 99, ours, baseline, _TARGET),
    ]


def _milliseconds(command: list[str], event: bytes, env: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, input=event, env=env, check=True, capture_output=True)
    return (time.perf_counter() - began) * 1_000
