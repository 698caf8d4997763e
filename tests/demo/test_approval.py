"""The demo of two people, as it is run."""

import asyncio
import re
import sys

import pytest

from demo.processes import REPOSITORY


@pytest.mark.long
async def test_the_row_of_a_command_has_the_name_of_who_ran_the_agent_and_of_who_allowed_it():
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "demo", "--approval"),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await demo.communicate())[0].decode()
    assert demo.returncode == 0, told
    [row] = [line for line in told.splitlines() if line.startswith("bash  ")]
    assert re.split(r"\s{2,}", row)[2:4] == ["ada", "bob"]
