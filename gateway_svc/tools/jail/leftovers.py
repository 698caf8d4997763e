"""Ends what a program left running in its sandbox, through the namespace's first process."""

import asyncio
import os
import re
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

OWN_FOLDERS = ("/tmp", "/dev/shm")  # noqa: S108 - its own
CHILD = re.compile(rb'"child-pid": *(\d+)')

_under_way: set[asyncio.Task[None]] = set()


async def carry_out(work: Coroutine[None, None, None]) -> None:
    """Finishes the work even if its waiter is cancelled, so that nothing is left behind."""
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    await asyncio.shield(task)


class SandboxRoot:
    """The first process in a sandbox. When it dies, the kernel kills all others, and it is gone only once they are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: int) -> None:
        """`told` is the pipe on which bubblewrap reports the process's id, before anything runs in the sandbox."""
        self._loop = loop
        self._told: int | None = told
        self._pid = 0
        self._pidfd: int | None = None
        self._gone = asyncio.Event()
        loop.add_reader(told, self._learn)

    def terminate(self) -> None:
        """Sends SIGTERM to the sandbox's processes; the first one ignores it, so that the others have time to end."""
        self._learn()
        if self._pidfd is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGTERM)

    def kill(self) -> bool:
        """Kills all processes in the sandbox; False if its first process is not known yet."""
        self._learn()
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        return self._pidfd is not None or self._gone.is_set()

    def temporary_files(self) -> int:
        """How many files and folders are in the sandbox's own /tmp and /dev/shm."""
        count = 0
        for place in OWN_FOLDERS if self._pidfd is not None else ():
            with suppress(OSError):  # it is ending
                inside = Path(f"/proc/{self._pid}/root{place}")
                if inside.stat().st_dev != Path(place).stat().st_dev:  # else it is being made, and still sees ours
                    told = os.statvfs(inside)
                    count += told.f_files - told.f_ffree
        return count

    async def wait_until_gone(self, seconds: float) -> None:
        """Waits up to `seconds` until no process of the sandbox is left, and closes."""
        if self._pidfd is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._gone.wait()
        self.close()

    def close(self) -> None:
        """Releases the process, whether it has ended or not."""
        for descriptor in (self._told, self._pidfd):
            if descriptor is not None:
                self._loop.remove_reader(descriptor)
                os.close(descriptor)
        self._told = self._pidfd = None

    def _learn(self) -> None:
        # The pipe stays open to the end: bubblewrap writes more than is needed, and would die of a closed pipe.
        if self._told is None or self._pid:
            return
        try:
            told = CHILD.search(os.read(self._told, 4096))
        except BlockingIOError:
            return
        self._loop.remove_reader(self._told)
        if told is None:  # bubblewrap ended before it made the sandbox
            return
        self._pid = int(told[1])
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except ProcessLookupError:
            self._gone.set()
        else:
            self._loop.add_reader(self._pidfd, self._on_gone)

    def _on_gone(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        self._gone.set()


def open_sandbox_root(loop: asyncio.AbstractEventLoop) -> tuple[SandboxRoot, int]:
    """A sandbox's first process, and the end of the pipe that bubblewrap needs for it."""
    told, told_to = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return SandboxRoot(loop, told), told_to
