"""Claude's program as a process: JSON lines in and out, and an end that leaves no process behind.

Its stdin stays open while it works, so that it can be interrupted; closing stdin only lets it finish, tools included.
What its tools start runs in other process sessions, which a signal to the program's group does not reach, and is found
by a mark in its environment.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import structlog

from gateway_svc.engines.claude.lines import MAX_LINE_BYTES
from gateway_svc.marks import kill_marked, new_mark, seconds_since_boot
from service_kit.bounds import Exceeded, check_json
from service_kit.time_slice import TimeSlice

MARKER = "ONRECORD_TURN"
"""The environment variable that marks what its tools left behind."""
CHUNK_BYTES = 64 * 1024
MAX_UNREAD_BYTES = 4 * 1024 * 1024
"""Of what it is told, before no more of its lines are read."""
STDERR_BYTES = 8 * 1024
HELD_PIPE_SECONDS = 0.5
"""How long to wait for the end of the output after the program's end: what its tools started may hold the pipe open."""
INTERRUPT_SECONDS = 1.5
TERM_SECONDS = 1.0
KILL_SECONDS = 5.0
"""How long to wait after each way of ending it. The first two together are shorter than a gateway's own drain."""

log = structlog.get_logger(__name__)


class ClaudeProcess:
    """A running program. Always call `end`."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str, begun: float) -> None:
        self._process = process
        self._begun = begun
        self._mark = mark
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        self._exited = asyncio.Event()
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._stdout = asyncio.StreamReader(limit=CHUNK_BYTES)
        self._received = 0
        self._stderr = _Tail()
        self._hearing = _Hearing()
        self._transports: list[asyncio.BaseTransport] = []
        self._watch = asyncio.create_task(self._close_held_pipe())
        self.exit_code: int | None = None
        """Negative for a signal; set once `end` has returned."""
        self.skipped_lines = 0
        """Lines that were no JSON object, or too long or of too many values."""

    @classmethod
    async def start(cls, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Self:
        """Starts the program.

        Raises:
            OSError: it cannot be started.
        """
        mark, begun = new_mark(), seconds_since_boot()
        process = _spawn(argv, cwd, {**env, MARKER: mark})
        try:
            started = cls(process, mark, begun)
        except OSError:
            process.kill()
            process.wait()
            raise
        await started._connect()
        return started

    async def _connect(self) -> None:
        loop, process = self._loop, self._process
        output = asyncio.StreamReaderProtocol(self._stdout)
        # The transport keeps the protocol alive; only the reader is used.
        self._output, _ = await loop.connect_read_pipe(lambda: output, process.stdout)
        errors, _ = await loop.connect_read_pipe(lambda: self._stderr, process.stderr)
        self._input, _ = await loop.connect_write_pipe(lambda: self._hearing, process.stdin)
        self._input.set_write_buffer_limits(MAX_UNREAD_BYTES)
        self._transports += (self._output, errors, self._input)

    @property
    def stderr_tail(self) -> str:
        """The end of its stderr. It may hold content: use it only to tell failures apart."""
        return self._stderr.text()

    def send(self, line: Mapping[str, Any]) -> None:
        """Writes a line to its stdin. If it no longer reads, the end of its output shows that."""
        self._input.write(json.dumps(line).encode() + b"\n")

    async def until_heard(self) -> None:
        """Waits while it leaves too much unread of what it was told."""
        await self._hearing.hears.wait()

    def close_input(self) -> None:
        """Closes its stdin: it ends when its work is done."""
        self._input.close()

    async def lines(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yields the JSON objects that it writes, until its output ends."""
        parts: list[bytes] = []
        length, time_slice = 0, TimeSlice()
        while chunk := await self._stdout.read(CHUNK_BYTES):
            self._received += len(chunk)
            *whole, rest = chunk.split(b"\n")
            for end in whole:
                if time_slice.is_over():
                    await time_slice.give_way()
                length += len(end)
                if length <= MAX_LINE_BYTES:
                    parts.append(end)
                    if (line := self._parse(b"".join(parts))) is not None:
                        yield line
                else:
                    self._skip("too_long", length)
                parts, length = [], 0
            length += len(rest)
            if length <= MAX_LINE_BYTES:
                parts.append(rest)
            else:
                parts.clear()
        if parts and (line := self._parse(b"".join(parts))) is not None:
            yield line

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        if not line.strip():
            return None
        try:
            check_json(line)
            value = json.loads(line)
        except Exceeded:
            self._skip("too_many_values", len(line))
            return None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self._skip("no_json_object", len(line))
            return None
        return value

    def _skip(self, reason: str, length: int) -> None:
        self.skipped_lines += 1
        if self.skipped_lines == 1:
            log.warning("claude.line_skipped", reason=reason, bytes=length)

    async def end(self, *, interrupt: bool, at_once: bool = False) -> None:
        """Ends it and all that it started: none of them is left when this returns.

        With `interrupt` it is first asked to stop, so that it can report the cost. Its lines can be read meanwhile.
        With `at_once` it is killed without being asked or waited for.
        """
        if interrupt and not at_once:
            self.send({"type": "control_request", "request_id": "stop", "request": {"subtype": "interrupt"}})
        self.close_input()
        if not at_once and not await self._ends_within(INTERRUPT_SECONDS):
            self._signal(signal.SIGTERM)
            if not await self._ends_within(TERM_SECONDS):
                log.warning("claude.killed")
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(kill_marked, f"{MARKER}={self._mark}", self._begun)
        await self._ends_within(KILL_SECONDS)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.exit_code = self._process.poll()

    async def close(self) -> None:
        """Closes its pipes, once its last lines were read or nobody wants them."""
        self._watch.cancel()
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)

    def _signal(self, number: signal.Signals) -> None:
        # Not reaped before end() has returned, so its number cannot be another group's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _ends_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return self._exited.is_set()

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited.set()

    async def _close_held_pipe(self) -> None:
        """Closes the output when the program has ended and nothing more comes, even if others hold the pipe open."""
        await self._exited.wait()
        received = -1
        while received != self._received:
            received = self._received
            await asyncio.sleep(HELD_PIPE_SECONDS)
        self._output.close()


def _spawn(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
    )


class _Hearing(asyncio.BaseProtocol):
    """Knows whether the other end of a pipe reads."""

    def __init__(self) -> None:
        self.hears = asyncio.Event()
        self.hears.set()

    def pause_writing(self) -> None:
        self.hears.clear()

    def resume_writing(self) -> None:
        self.hears.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.hears.set()


class _Tail(asyncio.Protocol):
    """Keeps the last bytes of a pipe."""

    def __init__(self) -> None:
        self._bytes = b""

    def data_received(self, data: bytes) -> None:
        self._bytes = (self._bytes + data)[-STDERR_BYTES:]

    def text(self) -> str:
        return self._bytes.decode(errors="replace")
