"""Runs a program so that none of its processes outlives the call: own session, bounded time and output, all killed.

stdin is /dev/null; stdout and stderr are one pipe. The event loop waits on the pipe and on the process's descriptor, so
a running program needs no thread.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from gateway_svc.marks import kill_marked, new_mark, seconds_since_boot
from gateway_svc.tools.jail.leftovers import SandboxRoot, carry_out, open_sandbox_root
from gateway_svc.tools.output import HeadTail

MARKER = "ONRECORD_CALL"
"""The environment variable that identifies processes that left their session, if there is no sandbox."""
CHUNK_BYTES = 64 * 1024
TERM_GRACE_SECONDS = 2.0
HELD_PIPE_SECONDS = 0.5
"""How long to wait for the end of the output after the program's end: an escaped process may hold the pipe open."""
REAP_SECONDS = 5.0
FLOOD_PAUSE_SECONDS = 0.001
MAX_TEMPORARY_FILES, COUNT_SECONDS = 65_536, 0.05
"""The most files in a sandbox's own temporary folders, and how often they are counted. bubblewrap bounds the bytes in
them; each file takes about a kilobyte of the kernel's memory besides."""
TEMPORARY_PREFIX = "onrecord-command-"
REMOVE = 'rm -rf -- "$0" || { chmod -R u+rwx -- "$0"; exec rm -rf -- "$0"; }'


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended."""

    exit_code: int | None
    """128 plus the signal's number if a signal ended it, as in shells; None if we killed it."""
    output: HeadTail
    timed_out: bool = False
    crowded: bool = False
    """Whether it was killed because of MAX_TEMPORARY_FILES."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    argv: Sequence[str]
    cwd: Path | str
    """Its working directory. An open folder is given by its path in /proc/self/fd; its descriptor is never passed on,
    since it leads out of a sandbox to what is above the folder."""
    env: Mapping[str, str]
    stdin: int = subprocess.DEVNULL
    prefix: Sequence[str] = ()
    """A program that prepares the environment of argv and then becomes it."""
    starts_others: bool = True
    """Whether it may start programs that leave its session, so that they must be searched for at its end."""
    bubblewrap: Mapping[str, bytes] | None = None
    """Set if argv[0] is bubblewrap: its options that read from a descriptor, and the content for each."""
    own_temporary: bool = False
    """Whether it gets a folder of its own as TMPDIR and HOME, which is removed at its end."""


async def run_program(
    program: Program, *, timeout_seconds: float, max_output_bytes: int, stop_at_bytes: int | None = None
) -> ProgramResult:
    """Runs the program to its end or to the time limit. Cancelling it kills the program.

    After `stop_at_bytes` of output the program is killed, since nobody needs more.

    Raises:
        OSError: the program cannot be started.
    """
    running = _Running(program, HeadTail(max_output_bytes), stop_at_bytes)
    timed_out = False
    try:
        timed_out = not await running.wait(timeout_seconds)
        if timed_out:
            running.terminate()
            await running.wait(TERM_GRACE_SECONDS)
    finally:
        await carry_out(running.end())
    code = None if timed_out or running.stopped else running.exit_code
    return ProgramResult(code, running.output, timed_out, running.crowded)


class _Running:
    """A running program."""

    def __init__(self, program: Program, output: HeadTail, stop_at_bytes: int | None) -> None:
        self.output = output
        self.exit_code: int | None = None
        self.stopped = False
        """Whether it was killed because it wrote enough."""
        self.crowded = False
        """Whether it was killed because it made too many temporary files."""
        self._stop_at_bytes = stop_at_bytes
        self._mark = new_mark()
        self._starts_others = program.starts_others
        self._started = seconds_since_boot()
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._drained = asyncio.Event()
        self._resuming: asyncio.TimerHandle | None = None
        self._counting: asyncio.TimerHandle | None = None
        self._root: SandboxRoot | None = None
        with ExitStack() as on_failure:
            self._pipe, write_end = os.pipe2(os.O_CLOEXEC)
            on_failure.callback(os.close, self._pipe)
            on_failure.callback(self._let_go_of_root)
            self._temporary = mkdtemp(prefix=TEMPORARY_PREFIX) if program.own_temporary else None
            on_failure.callback(_remove, self._temporary)
            try:
                self._process = self._start(program, write_end)
            finally:
                os.close(write_end)
            on_failure.callback(self._process.wait)
            on_failure.callback(_signal_group, self._process.pid, signal.SIGKILL)
            self._pidfd = os.pidfd_open(self._process.pid)
            on_failure.pop_all()
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(self._pipe, self._on_output)
        if self._root:
            self._counting = self._loop.call_later(COUNT_SECONDS, self._count_files, self._root)

    def _count_files(self, root: SandboxRoot) -> None:
        if root.temporary_files() > MAX_TEMPORARY_FILES:
            self.crowded = True
            self._kill()
        else:
            self._counting = self._loop.call_later(COUNT_SECONDS, self._count_files, root)

    def _start(self, program: Program, write_end: int) -> subprocess.Popen[bytes]:
        with ExitStack() as after_start:
            options: list[str] = []
            descriptors: list[int] = []
            if program.bubblewrap is not None:
                options, read = after_start.enter_context(descriptors_of(program.bubblewrap))
                descriptors += read
                self._root, told_to = open_sandbox_root(self._loop)
                after_start.callback(os.close, told_to)
                options += ["--info-fd", str(told_to)]
                descriptors.append(told_to)
            return subprocess.Popen(
                [*program.prefix, program.argv[0], *options, *program.argv[1:]],
                cwd=program.cwd,
                env={**program.env, **self._own_variables(), MARKER: self._mark},
                stdin=program.stdin,
                stdout=write_end,
                stderr=write_end,
                pass_fds=descriptors,
                start_new_session=True,
            )

    def _own_variables(self) -> dict[str, str]:
        return {"HOME": self._temporary, "TMPDIR": self._temporary} if self._temporary else {}

    def _let_go_of_root(self) -> None:
        if self._root:
            self._root.close()

    async def wait(self, seconds: float) -> bool:
        """Waits up to `seconds` for the program's end; returns whether it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return self._exited.is_set()

    def terminate(self) -> None:
        """Sends the program SIGTERM."""
        if self._root:
            self._root.terminate()
        else:
            _signal_group(self._process.pid, signal.SIGTERM)

    async def end(self) -> None:
        """Kills what is left, reads the rest of the output, and reaps the program."""
        if self._counting:
            self._counting.cancel()
        sandbox_killed = self._kill()
        if not sandbox_killed and self._starts_others:
            await asyncio.to_thread(kill_marked, f"{MARKER}={self._mark}", self._started)
        if not await self.wait(REAP_SECONDS):
            _signal_group(self._process.pid, signal.SIGKILL)
        if self._root:
            await self._root.wait_until_gone(REAP_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(HELD_PIPE_SECONDS):
                await self._drained.wait()
        if self._resuming:
            self._resuming.cancel()
        for descriptor in (self._pipe, self._pidfd):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        if self._temporary:
            await asyncio.to_thread(_remove, self._temporary)
        code = self._process.poll()
        if code is not None:
            self.exit_code = code if code >= 0 else 128 - code

    def _kill(self) -> bool:
        """Kills the sandbox, which nothing escapes, or else the process group; returns whether it was the sandbox."""
        if self._root and self._root.kill():
            return True
        # The program is not reaped yet, so its id cannot belong to another process or group.
        _signal_group(self._process.pid, signal.SIGKILL)
        return False

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
        """Reads a flood slowly, so that its writer waits and not the event loop's other work."""
        self._loop.remove_reader(self._pipe)
        resume = partial(self._loop.add_reader, self._pipe, self._on_output)
        self._resuming = self._loop.call_later(FLOOD_PAUSE_SECONDS, resume)


@contextmanager
def descriptors_of(contents: Mapping[str, bytes]) -> Iterator[tuple[list[str], list[int]]]:
    """Options of bubblewrap, each with a descriptor of its content; and these descriptors."""
    options: list[str] = []
    descriptors: list[int] = []
    try:
        for option, content in contents.items():
            descriptors.append(os.memfd_create(option))
            os.write(descriptors[-1], content)
            os.lseek(descriptors[-1], 0, os.SEEK_SET)
            options += [option, str(descriptors[-1])]
        yield options, descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _remove(folder: str | None) -> None:
    """Removes a folder with all that a program left in it, however deep, whatever its modes."""
    if folder is None:
        return
    try:
        os.rmdir(folder)  # noqa: PTH106 - most are empty
    except OSError:
        subprocess.run(["/bin/sh", "-c", REMOVE, folder], stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
