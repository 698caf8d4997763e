"""A deployment that keeps no record of Claude does not even load what keeps one."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from demo.processes import REPOSITORY
from tests.support import claude_cli
from tests.support.claude_cli import MODEL, init, message, result, spent, tool_result, tool_use

PROGRAM = """
import asyncio, re, sys
from pathlib import Path
from gateway_svc.engines.claude import ClaudeRunner
from gateway_svc.messages import UserMessage
from recording.calls import Scope
from gateway_svc.turns.account import TurnAccount
from gateway_svc.turns.events import TurnEvents
from gateway_svc.turns.turn import Turn

folder, command = Path(sys.argv[1]), sys.argv[2]
runner = ClaudeRunner(
    command, "", folder / "state", folder, price=lambda model, usage: None, max_steps=5, max_turn_seconds=20
)
history = [UserMessage("go")]
events = TurnEvents()
turn = Turn(Scope("s", "claude", "", "t"), "", history, history.append, events, TurnAccount(events.warn))
asyncio.run(runner.run(turn))
allowed = "channel|calls|compact_json|framing|locks|log$|replacing"
loaded = sorted(name for name in sys.modules if re.match(f"recording.(?!{allowed})", name))
print(turn.account.totals.tool_calls, loaded)
"""


@pytest.mark.long
def test_neither_importing_nor_running_it_loads_the_audit_package(tmp_path):
    call = tool_use("toolu_1", "Bash", {"command": "true"})
    lines = [init(), *message("msg_1", "", [call]), tool_result("toolu_1", "x"), result({MODEL: spent(1, 0.001)})]
    (tmp_path / "play-0.json").write_text(json.dumps({"lines": lines}))
    command = shlex.join([sys.executable, str(Path(claude_cli.__file__)), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), command],
        env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'protos'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["1 []"], done.stderr
