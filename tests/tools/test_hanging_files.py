"""A file whose system does not answer holds the calls on it, and nobody else's; no end of the process waits for it."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway_svc import threads as threads_module
from gateway_svc.tools import Tool, ToolContext
from gateway_svc.tools.edit import EditTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.files import handle as handles
from gateway_svc.tools.glob import GlobTool
from gateway_svc.tools.grep import GrepTool
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.tools.workers.pool import Workers
from gateway_svc.tools.write import WriteTool
from recording.calls import ToolCall, ToolResult

CALLS: dict[str, dict[str, Any]] = {
    "read": {"path": "hangs/a"},
    "write": {"path": "hangs/a", "content": "new"},
    "edit": {"path": "hangs/a", "old_string": "old", "new_string": "new"},
    "glob": {"path": "hangs", "pattern": "*"},
    "grep": {"path": "hangs/a", "pattern": "old"},
}


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Lets what opens anything in `hangs` wait until the end; counts those that do. A network file system does so."""
    answers, waiting, opening = threading.Event(), threading.Semaphore(0), os.open

    def slow(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        folder = kwargs.get("dir_fd")
        if folder is not None and "hangs" in (path, Path(f"/proc/self/fd/{folder}").readlink().name):
            waiting.release()
            answers.wait(60)
        return opening(path, flags, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", slow)
        try:
            yield waiting
        finally:
            answers.set()


async def call(toolbox: Toolbox, files: Files, name: str, arguments: dict[str, Any]) -> ToolResult:
    return await toolbox.run(ToolCall("row", "", name, json.dumps(arguments)), ToolContext(files))


async def until_waiting(waiting: threading.Semaphore, count: int) -> None:
    while count:
        count -= waiting.acquire(blocking=False)
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", CALLS)
async def test_calls_on_a_hanging_file_leave_the_loop_its_threads_and_other_files(workspace: Path, monkeypatch, name):
    """As many as the loop's own pool has threads, and more: cancelled, they are left behind."""
    monkeypatch.setattr(threads_module, "IDLE_SECONDS", 0.01)
    (workspace / "hangs").mkdir()
    for file in ("hangs/a", "b"):
        (workspace / file).write_text("old")
    tools: list[Tool] = [ReadTool(), WriteTool(), EditTool(), GlobTool(Workers()), GrepTool(None, Workers())]
    toolbox, count = Toolbox(tools), 8
    with Files(workspace) as files:
        with hanging(monkeypatch) as waiting:
            held = [asyncio.create_task(call(toolbox, files, name, CALLS[name])) for _ in range(count)]
            await until_waiting(waiting, 1 if name in ("write", "edit") else count)
            assert (await call(toolbox, files, "read", {"path": "b"})).text == "old"
            assert await asyncio.to_thread(lambda: "free") == "free"
            for task in held:
                task.cancel()
            assert all(
                isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*held, return_exceptions=True)
            )
            assert (await call(toolbox, files, "read", {"path": "b"})).text == "old"
        while any(thread.name in ("looks at files", "changes of files") for thread in threading.enumerate()):
            await asyncio.sleep(0.001)


async def test_a_change_that_hangs_holds_no_other_for_ever(workspace: Path, monkeypatch):
    monkeypatch.setattr(handles, "_CHANGE_SECONDS", 0.01)
    (workspace / "hangs").mkdir()
    toolbox = Toolbox([WriteTool()])
    with Files(workspace) as files, hanging(monkeypatch) as waiting:
        held = asyncio.create_task(call(toolbox, files, "write", CALLS["write"]))
        await until_waiting(waiting, 1)
        other = await call(toolbox, files, "write", {"path": "b", "content": "new"})
        assert other.error == "another change of a file has not ended: try again later"
        held.cancel()
        await asyncio.wait([held])
