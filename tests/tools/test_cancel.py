"""A cancelled command is gone at once, however early or late the cancellation comes."""

import asyncio

import pytest

from gateway_svc.tools import ToolContext
from gateway_svc.tools.bash import BashArguments, BashTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.jail import confine, processes
from gateway_svc.tools.jail.sandbox import find_sandbox


@pytest.mark.long
@pytest.mark.parametrize("delay", [0, 0.001, 0.003, 0.006, 0.01, 0.05])
@pytest.mark.parametrize("mode", ["auto", "landlock", "off"])
async def test_a_cancelled_command_is_gone_before_it_would_be_reaped_by_force(tmp_path, monkeypatch, mode, delay):
    monkeypatch.setattr(processes, "REAP_SECONDS", 3600.0)  # longer than a test may take
    monkeypatch.setenv("container", "as root, Landlock is not offered elsewhere")
    if mode == "landlock" and not confine.version():
        pytest.skip("this kernel has no Landlock")
    tool = BashTool(find_sandbox(mode))
    command, context = BashArguments(command="sleep 60"), ToolContext(Files(tmp_path))
    tasks = [asyncio.create_task(tool.run(command, context)) for _ in range(3)]
    await asyncio.sleep(delay)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
