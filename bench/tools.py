"""(f) Each tool against the bare operation: the cost of protection against hostile arguments."""

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
from uuid_utils import uuid7

from bench.figures import Figure, compare
from bench.services import model_server
from gateway_svc.tools import Tool, ToolContext
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.edit import EditTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.glob import GlobTool
from gateway_svc.tools.grep import GrepTool
from gateway_svc.tools.jail.sandbox import find_sandbox
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.tools.webfetch import WebfetchTool
from gateway_svc.tools.workers import Workers
from gateway_svc.tools.write import WriteTool
from recording.calls import ToolCall
from service_kit.observing.logs import configure_logging

FILES = 400
LINES = 200
LINE = "a line of a file, as files have them\n"
PAGE = "<html><body><h1>Tides</h1><p>High water comes 50 minutes later each day.</p></body></html>"
BUNCH = 20
"""Fast operations are timed in groups of this size."""

Operation = Callable[[], Awaitable[object]]


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of read, write, edit, glob, grep, bash and webfetch."""
    configure_logging("error", "console")
    workspace = (place / "workspace").resolve()
    for number in range(FILES):
        folder = workspace / f"folder{number % 20}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}.txt").write_text(LINE * LINES + f"needle {number}\n")
    said = {"check": False, "steps": [], "pages": {"/pages/tides.html": {"body": PAGE}}}
    with model_server(place, said) as url:
        return asyncio.run(_measure(workspace, url, 5 if short else 25))


async def _measure(workspace: Path, url: str, rounds: int) -> list[Figure]:
    file, page = workspace / "folder0" / "file0.txt", f"{url}/pages/tides.html"
    sandbox, workers = find_sandbox("auto"), Workers()
    webfetch = WebfetchTool(workers, allow=[url.removeprefix("http://")])
    plain = _Caller(
        [ReadTool(), WriteTool(), EditTool(), GlobTool(workers), GrepTool(None, workers), BashTool(None), webfetch],
        workspace,
    )
    text, path = LINE * LINES, "folder0/file0.txt"
    command = "echo hello"
    figures = [
        await _compare("read, 8 kB", BUNCH, rounds, plain.call("read", path=path), _bare(file.read_text)),
        await _compare(
            "write, 8 kB",
            BUNCH,
            rounds,
            plain.call("write", path="new.txt", content=text),
            _bare(lambda: (workspace / "other.txt").write_text(text)),
        ),
        await _compare(
            "edit in 8 kB, there and back",
            BUNCH,
            rounds,
            _both(
                plain.call("edit", path="folder1/file1.txt", old_string="needle 1\n", new_string="thread 1\n"),
                plain.call("edit", path="folder1/file1.txt", old_string="thread 1\n", new_string="needle 1\n"),
            ),
            _both(
                _bare(lambda: _edit(workspace / "folder2" / "file2.txt", "needle 2\n", "thread 2\n")),
                _bare(lambda: _edit(workspace / "folder2" / "file2.txt", "thread 2\n", "needle 2\n")),
            ),
        ),
        await _compare(
            f"glob, {FILES} files",
            1,
            rounds,
            plain.call("glob", pattern="**/*.txt"),
            _bare(lambda: sorted(workspace.glob("**/*.txt"))),
        ),
        await _compare("bash without a sandbox", 1, rounds, plain.call("bash", command=command), _shell(command)),
        await _compare(
            "webfetch, against a client for each page", 1, rounds, plain.call("webfetch", url=page), _get(page)
        ),
    ]
    if shutil.which("rg"):
        grep = plain.call("grep", pattern="needle 7")
        figures.append(await _compare(f"grep, {FILES} files", 1, rounds, grep, _shell(f"rg -n 'needle 7' {workspace}")))
    if sandbox:
        held = _Caller([BashTool(sandbox)], workspace)
        figures.append(
            await _compare("bash in the sandbox", 1, rounds, held.call("bash", command=command), _shell(command))
        )
    return figures


class _Caller:
    """Runs calls as the agent loop does."""

    def __init__(self, tools: list[Tool], workspace: Path) -> None:
        self._toolbox = Toolbox(tools)
        self._context = ToolContext(Files(workspace))

    def call(self, name: str, **arguments: object) -> Operation:
        call = ToolCall(str(uuid7()), "call_1", name, json.dumps(arguments))

        async def run() -> None:
            result = await self._toolbox.run(call, self._context)
            if result.error:
                raise RuntimeError(f"{name}: {result.error}")

        return run


async def _compare(name: str, times: int, rounds: int, ours: Operation, bare: Operation) -> Figure:
    taken: tuple[list[float], list[float]] = ([], [])
    for operation in (ours, bare):
        await operation()
    for _ in range(rounds):
        for operation, milliseconds in zip((ours, bare), taken, strict=True):
            started = time.perf_counter()
            for _ in range(times):
                await operation()
            milliseconds.append((time.perf_counter() - started) * 1000 / times)
    return compare(f"(f) {name}", "ms", *taken, None)


def _bare(operation: Callable[[], object]) -> Operation:
    """Runs in a thread, as in a service: the event loop must not wait for a disk."""

    async def run() -> None:
        await asyncio.to_thread(operation)

    return run


def _both(one: Operation, other: Operation) -> Operation:
    async def run() -> None:
        await one()
        await other()

    return run


def _edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def _shell(command: str) -> Operation:
    async def run() -> None:
        process = await asyncio.create_subprocess_shell(
            command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        await process.communicate()

    return run


def _get(url: str) -> Operation:
    # Without CA certificates, which are not needed here and take 20 ms to load.
    async def run() -> None:
        async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
            (await client.get(url)).raise_for_status()

    return run
