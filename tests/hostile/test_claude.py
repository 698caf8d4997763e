"""A program in place of Claude's that means harm ends its own turn; the turns of others go on."""

import re
import shlex
import sys
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from demo.processes import REPOSITORY
from tests.hostile import claude_attacks
from tests.hostile.conftest import Start
from tests.hostile.held import MIB, WATCHED, forget_peak, memory
from tests.hostile.house import open_house

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

COMPLETED, FAILED = "COMPLETED", "INTERNAL"
ENDS = {
    "text": (FAILED, "4,194,304 characters of text in one answer"),
    "whole text": (FAILED, "33,554,432 characters of text, reasoning and arguments in one turn"),
    "arguments": (FAILED, "33,554,432 characters of text, reasoning and arguments in one turn"),
    "calls": (FAILED, "10,000 tool calls in one turn"),
    "reasoning": (FAILED, "33,554,432 characters of text, reasoning and arguments in one turn"),
    "fragments": (FAILED, "250,000 fragments of tool calls in one answer"),
    "values": (COMPLETED, ""),
    "deep": (COMPLETED, ""),
    "overlong": (COMPLETED, ""),
    "garbage": (COMPLETED, ""),
    "unknown": (COMPLETED, ""),
    "errors": (COMPLETED, ""),
    "survivors": (COMPLETED, ""),
}
QUICK = ("text", "calls", "values", "survivors")


@pytest.mark.parametrize(
    "names",
    [QUICK, pytest.param(ENDS, marks=pytest.mark.long)],
    ids=["quick", "all"],
)
async def test_what_the_program_writes_costs_its_own_turn(start: Start, tmp_path: Path, names: Collection[str]):
    assert ENDS.keys() == claude_attacks.ATTACKS.keys()
    command = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, str(Path(claude_attacks.__file__))]
    env = {"GATEWAY_CLAUDE_COMMAND": shlex.join(command), "GATEWAY_AUDIT_CLAUDE": "on"}
    async with open_house(start, tmp_path, **env) as house:
        watched, wrong = WATCHED[house.gateway.pid], []
        async with house.honest():
            for name in names:
                began, before = time.monotonic(), forget_peak(house.gateway)
                ending = await house.end_of(engine="claude", input=f"attack: {name}.")
                if ending.end != ENDS[name][0] or not re.search(ENDS[name][1], ending.told):
                    wrong.append(f"{name}: {ending}")
                watched.cases.append((name, began, time.monotonic()))
                grown = memory(house.gateway, "VmHWM") - before
                print(f"{name}: {time.monotonic() - began:.1f} s, {grown / MIB:.0f} MiB")
        assert wrong + await house.wrong() == []
