"""Runs a program so that nothing of it outlives the call: its own session, bounded time and output, all of it killed.

The program reads nothing (stdin is /dev/null), and stdout and stderr are one pipe. The event loop waits on the pipe and
on the process's descriptor, so that a running program holds no thread.
"""

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway_svc.tools.output import HeadTail

CHUNK_BYTES = 64 * 1024
TERM_GRACE_SECONDS = 2.0
HELD_PIPE_SECONDS = 0.5
"""How long the output's end is waited for once the program has ended: a process that escaped may hold the pipe open."""
REAP_SECONDS = 5.0
WATCH_SECONDS = 0.1
FLOOD_PAUSE_SECONDS = 0.001
MARKER = "ONRECORD_CALL"
"""The environment variable by which processes that left the session are found again where there is no sandbox."""

_endings: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    exit_code: int | None
    """128 and the signal's number where a signal ended it, as shells tell it; None where we killed it."""
    output: HeadTail
    timed_out: bool = False
    overstepped: str | None = None
    """Why it was killed ahead of its time: the sentence that `watch` gave."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    argv: Sequence[str]
    cwd: Path | str
    env: Mapping[str, str]
    stdin: int = subprocess.DEVNULL
    pass_fds: tuple[int, ...] = ()
    sandboxed: bool = False
    """Whether argv begins with bubblewrap: then its child leads a session of its own and is the root of all else."""


async def run_program(
    program: Program,
    *,
    timeout_seconds: float,
    max_output_bytes: int,
    watch: Callable[[int], str | None] | None = None,
    stop_at_bytes: int | None = None,
) -> Ended:
    """Runs to the program's end, or to the time limit. Cancelling it kills the program.

    `watch` is called with the pid now and then, and says why the program must not go on. Past `stop_at_bytes` of output
    the program is killed, since nobody wants more.

    Raises:
        OSError: the program cannot be started.
    """
    running = _Running(program, HeadTail(max_output_bytes), stop_at_bytes)
    overstepped: str | None = None
    timed_out = False
    try:
        async with asyncio.timeout(timeout_seconds):
            while not await running.wait(WATCH_SECONDS if watch else None):
                if watch and (overstepped := watch(running.pid)):
                    break
    except TimeoutError:
        timed_out = True
        running.terminate()
        await running.wait(TERM_GRACE_SECONDS)
    finally:
        ending = asyncio.create_task(running.end())
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
        # Shielded: a second cancellation must not leave a process behind.
        await asyncio.shield(ending)
    killed = timed_out or overstepped is not None or running.stopped
    return Ended(None if killed else running.exit_code, running.output, timed_out, overstepped)


class _Running:
    """A program under way."""

    def __init__(self, program: Program, output: HeadTail, stop_at_bytes: int | None) -> None:
        self.output = output
        self.exit_code: int | None = None
        self.stopped = False
        """Whether it was killed since it wrote as much as was wanted."""
        self._sandboxed = program.sandboxed
        self._stop_at_bytes = stop_at_bytes
        self._mark = secrets.token_hex(16)
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._drained = asyncio.Event()
        self._resuming: asyncio.TimerHandle | None = None
        self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(write_end, True)
            self._process = subprocess.Popen(
                program.argv,
                cwd=program.cwd,
                env={**program.env, MARKER: self._mark},
                stdin=program.stdin,
                stdout=write_end,
                stderr=write_end,
                pass_fds=program.pass_fds,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self.pid = self._process.pid
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            _signal_group(self.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._pipe)
            raise
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(self._pipe, self._on_output)

    async def wait(self, seconds: float | None) -> bool:
        """Waits for the program's end, at most so long; returns whether it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return self._exited.is_set()

    def terminate(self) -> None:
        """Asks the program to end."""
        if self._sandboxed:
            # bubblewrap itself would die of the signal and take all with it at once; its first child ignores it.
            for child in children(self.pid):
                _signal_group(child, signal.SIGTERM)
        else:
            _signal_group(self.pid, signal.SIGTERM)

    async def end(self) -> None:
        """Kills what is left, takes what is left of the output, and reaps the program."""
        if self._kill():
            await asyncio.to_thread(_kill_marked, self._mark)
        if not await self.wait(REAP_SECONDS):
            _signal_group(self.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(HELD_PIPE_SECONDS):
                await self._drained.wait()
        if self._resuming:
            self._resuming.cancel()
        self._loop.remove_reader(self._pipe)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pipe)
        os.close(self._pidfd)
        code = self._process.poll()
        if code is not None:
            self.exit_code = code if code >= 0 else 128 - code

    def _kill(self) -> bool:
        """Kills the sandbox, or the program's group; returns whether a process may have escaped that."""
        # The program is not reaped yet, so its number cannot have been given to another process or group.
        roots = children(self.pid) if self._sandboxed else []
        for root in roots:
            # The kernel kills the whole namespace with its root, and bubblewrap ends once that is done.
            _signal_group(root, signal.SIGKILL)
        if not roots:
            _signal_group(self.pid, signal.SIGKILL)
        return not roots and not (self._sandboxed and self._exited.is_set())

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited.set()

    def _on_output(self) -> None:
        try:
            chunk = os.read(self._pipe, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(self._pipe)
            self._drained.set()
            return
        self.output.feed(chunk)
        if self._stop_at_bytes is not None and self.output.total > self._stop_at_bytes:
            self.stopped = True
            self._kill()
        elif self.output.truncated:
            self._pause()

    def _pause(self) -> None:
        """Reads a flood slowly, so that it is its writer that waits and not the event loop's other work."""
        self._loop.remove_reader(self._pipe)
        resume = partial(self._loop.add_reader, self._pipe, self._on_output)
        self._resuming = self._loop.call_later(FLOOD_PAUSE_SECONDS, resume)


def children(pid: int) -> list[int]:
    """The children of a process's main thread; none where the process has ended or the kernel does not tell."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_marked(mark: str) -> None:
    """Kills processes that left their session, found by their environment; again until none is found."""
    needle = f"{MARKER}={mark}".encode()
    for _ in range(10):
        marked = [pid for pid in _processes() if needle in _environment(pid)]
        if not marked:
            return
        for pid in marked:
            with suppress(OSError):
                _kill_if_marked(pid, needle)


def _kill_if_marked(pid: int, needle: bytes) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        # Looked at again, since the number may have been given to another process before the descriptor held it.
        if needle in _environment(pid):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # another user's, or it has ended
        return b""
