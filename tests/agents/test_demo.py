"""The demo with Claude Code, as it is run."""

import re
import subprocess
import sys

import pytest

from demo.processes import REPOSITORY
from tests.agents.agents import AGENTS
from tests.agents.install import chosen
from tests.agents.test_agents import is_there

NAME = "claude-code"
pytestmark = [pytest.mark.agents, pytest.mark.skipif(NAME not in chosen(), reason=f"{NAME} is not among AGENTS")]


def test_the_rows_of_claude_code_stand_beside_our_own_loops():
    is_there(AGENTS[NAME])
    command = [sys.executable, "-m", "demo", "--agent", "claude"]
    demo = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    rows = [re.split(r"\s{2,}", line) for line in demo.stdout.splitlines()]
    outcomes = [(row[0].split()[0], row[1], row[3]) for row in rows if len(row) > 4]
    assert ("our", "bash", "exit 3") in outcomes
    assert [one[1:] for one in outcomes if one[0] == NAME] == [
        ("Read", "succeeded"),
        ("Bash", "failed exit 3"),
        ("Write", "denied"),
    ]
