"""An MCP server as a program: JSON lines over its pipes, in a session of its own, and nothing of it left at its end.

The transport of the package `mcp` has no limit on a line, passes on stderr, which may be content, and does not find
what left the server's group; hence this one.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import structlog
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from gateway_svc.marks import kill_marked, new_mark, seconds_since_boot

MARKER = "ONRECORD_MCP"
"""The environment variable by which what a server started is found at its end."""
INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""All that a server gets of the gateway's environment unless the file names more."""
MAX_LINE_BYTES = 16 * 1024 * 1024
EXIT_SECONDS = 1.0
TERM_SECONDS = 1.0
KILL_SECONDS = 2.0
"""How long its end is waited for behind the end of its stdin, SIGTERM and SIGKILL."""

log = structlog.get_logger(__name__)


def environment(gateway: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """What a server sees: a few variables that programs need, and those that the file names."""
    return {name: gateway[name] for name in INHERITED if name in gateway} | dict(more)


@asynccontextmanager
async def run_server(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, on_end: Callable[[], None]
) -> AsyncIterator[TransportStreams]:
    """Starts the program; `on_end` is called when its output ends.

    Raises:
        OSError: it cannot be started.
    """
    mark, begun = new_mark(), seconds_since_boot()
    process = await anyio.open_process(
        argv, env={**env, MARKER: mark}, cwd=cwd, stderr=subprocess.DEVNULL, start_new_session=True
    )
    input_, output = process.stdin, process.stdout
    if input_ is None or output is None:
        raise OSError("a program was started without pipes")
    heard, listen = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    tell, told = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as pipes:
            pipes.start_soon(_read, output, heard, on_end)
            pipes.start_soon(_write, input_, told)
            yield listen, tell
            pipes.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process, input_, mark, begun)
        for stream in (heard, listen, tell, told):
            stream.close()


async def _read(
    output: ByteReceiveStream, heard: "MemoryObjectSendStream[SessionMessage | Exception]", on_end: Callable[[], None]
) -> None:
    """Passes on each line. A line that never ends ends the connection, and so the server."""
    parts: list[bytes] = []
    length = 0
    async with heard:
        with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
            while length <= MAX_LINE_BYTES:
                *whole, rest = (await output.receive()).split(b"\n")
                for end in whole:
                    await _pass_on(b"".join((*parts, end)), heard)
                    parts, length = [], 0
                parts.append(rest)
                length += len(rest)
            log.warning("mcp.line_too_long", bytes=length)
    on_end()


async def _pass_on(line: bytes, heard: "MemoryObjectSendStream[SessionMessage | Exception]") -> None:
    if not line.strip():
        return
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        # servers print what they should not; what it was may be content
        log.warning("mcp.line_skipped", bytes=len(line))
        return
    await heard.send(SessionMessage(message))


async def _write(input_: ByteSendStream, told: "MemoryObjectReceiveStream[SessionMessage]") -> None:
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async with told:
            async for message in told:
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await input_.send(line.encode(errors="replace") + b"\n")


async def _end(process: Process, input_: ByteSendStream, mark: str, begun: float) -> None:
    """Ends the server by the end of its stdin, then SIGTERM, then SIGKILL to all that is left of it."""
    with suppress(OSError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        await input_.aclose()
    if not await _ends_within(process, EXIT_SECONDS):
        _signal_group(process.pid, signal.SIGTERM)
        await _ends_within(process, TERM_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    await asyncio.to_thread(kill_marked, f"{MARKER}={mark}", begun)
    await _ends_within(process, KILL_SECONDS)
    with suppress(OSError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        await process.aclose()


async def _ends_within(process: Process, seconds: float) -> bool:
    # not by process.wait(), which also waits for pipes that a grandchild may hold
    with anyio.move_on_after(seconds):
        while process.returncode is None:  # noqa: ASYNC110 - the loop tells of an exit by this alone
            await anyio.sleep(0.01)
    return process.returncode is not None


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
