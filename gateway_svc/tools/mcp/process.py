"""An MCP server as a program: JSON lines over pipes, in a process session of its own, with no process left behind."""

import asyncio
import asyncio.subprocess
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from gateway_svc.marks import kill_marked, new_mark, seconds_since_boot
from gateway_svc.tools.mcp.client import Client, ConnectionLost
from gateway_svc.tools.mcp.wire import MAX_MESSAGE_BYTES
from service_kit.time_slice import TimeSlice

MARKER = "ONRECORD_MCP"
"""The environment variable that marks what a server started."""
INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""The variables of the gateway's environment that every server gets; the file may name more."""
CHUNK_BYTES = 64 * 1024
EXIT_SECONDS = 1.0
TERM_SECONDS = 1.0
KILL_SECONDS = 2.0
"""How long to wait for its end after closing its stdin, after SIGTERM and after SIGKILL."""

log = structlog.get_logger(__name__)


def environment(gateway: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """A server's environment: a few variables that programs need, and those that the file names."""
    return {name: gateway[name] for name in INHERITED if name in gateway} | dict(more)


class _Pipes:
    """The Link to a program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise OSError("a program was started without pipes")
        self._input, self._output = process.stdin, process.stdout
        self._sending = asyncio.Lock()

    async def send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n"
        try:
            async with self._sending:
                self._input.write(line)
                await self._input.drain()
        except (OSError, RuntimeError):
            raise ConnectionLost from None

    async def read(self, client: Client, server: str) -> None:
        """Passes each line to the client. An overlong line ends the link."""
        parts: list[bytes] = []
        length, time_slice = 0, TimeSlice()
        with suppress(OSError):
            while length <= MAX_MESSAGE_BYTES:
                chunk = await self._output.read(CHUNK_BYTES)
                if not chunk:
                    break
                *whole, rest = chunk.split(b"\n")
                for end in whole:
                    await client.take(b"".join((*parts, end)))
                    parts, length = [], 0
                    if time_slice.is_over():
                        await time_slice.give_way()
                parts.append(rest)
                length += len(rest)
            else:
                log.warning("mcp.line_too_long", server=server, bytes=length)
        client.lost.set()

    def close(self) -> None:
        """Closes the program's stdin."""
        with suppress(OSError, RuntimeError):
            self._input.close()


@asynccontextmanager
async def run_server(
    server: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path, client: Client
) -> AsyncIterator[_Pipes]:
    """Starts the program, and passes its output to the client. At the end none of its processes is left.

    Raises:
        OSError: it cannot be started.
    """
    mark, begun = new_mark(), seconds_since_boot()
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        partial(asyncio.subprocess.SubprocessStreamProtocol, CHUNK_BYTES, loop),
        *argv,
        env={**env, MARKER: mark},
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    process = asyncio.subprocess.Process(transport, protocol, loop)
    pipes = _Pipes(process)
    reading = asyncio.create_task(pipes.read(client, server), name=f"mcp {server} reads")
    try:
        yield pipes
    finally:
        client.lost.set()
        ending = asyncio.create_task(_end(process, transport, pipes, mark, begun))
        reading.cancel()
        await _finished(ending)


async def _finished(ending: "asyncio.Task[None]") -> None:
    """Waits for a server's end even if the waiter is cancelled, so that nothing is left behind."""
    cancelled = False
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def _end(
    process: asyncio.subprocess.Process, transport: asyncio.SubprocessTransport, pipes: _Pipes, mark: str, begun: float
) -> None:
    """Ends the server: closes its stdin, then SIGTERM, then SIGKILL for all that is left."""
    pipes.close()
    if not await _ends_within(process, EXIT_SECONDS):
        _signal_group(process.pid, signal.SIGTERM)
        await _ends_within(process, TERM_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    await asyncio.to_thread(kill_marked, f"{MARKER}={mark}", begun)
    await _ends_within(process, KILL_SECONDS)
    transport.close()


async def _ends_within(process: asyncio.subprocess.Process, seconds: float) -> bool:
    # not process.wait(), which also waits for pipes that a grandchild may hold
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while process.returncode is None:  # noqa: ASYNC110 - the loop tells of an exit by this alone
                await asyncio.sleep(0.01)
    return process.returncode is not None


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
