"""Limits how many processes a command may have when run by root, to whom resource limits do not apply."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gateway_svc.tools.jail.leftovers import carry_out

ROOT = Path("/sys/fs/cgroup")
PREFIX = "onrecord-"
# Starts a shell that enters the group and then becomes the program, so that nothing runs outside the group.
ENTER = 'echo 0 >"$0" || exit 126; exec "$@"'
EMPTYING_SECONDS = 2.0


class ProcessGroups:
    """Control groups, one for each running command."""

    def __init__(self, parent: Path) -> None:
        """`parent` is a group with the controller `pids`, in which this process may create others."""
        self._parent = parent

    @asynccontextmanager
    async def limited(self, max_processes: int, shell: str) -> AsyncIterator[list[str]]:
        """Yields an argv prefix that limits a command to max_processes. At the end none of them is left.

        Raises:
            OSError: the group cannot be made.
        """
        group = self._parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        await asyncio.to_thread(_make, group, max_processes)
        try:
            yield [shell, "-c", ENTER, str(group / "cgroup.procs")]
        finally:
            await carry_out(_remove(group))


def find_process_groups() -> ProcessGroups | None:
    """Control groups, if this process can create ones that count processes; else None."""
    for parent in (ROOT / "pids", ROOT):
        trial = parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            _remove_stale(parent)
            _make(trial, 1)
            trial.rmdir()
        except OSError:
            continue
        return ProcessGroups(parent)
    return None


def _make(group: Path, max_processes: int) -> None:
    group.mkdir()
    try:
        (group / "pids.max").write_bytes(b"%d" % max_processes)
    except OSError:
        group.rmdir()
        raise


def _remove_stale(parent: Path) -> None:
    """Removes the groups of gateways that were killed."""
    for group in parent.glob(f"{PREFIX}*"):
        owner = group.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            with suppress(OSError):
                group.rmdir()


async def _remove(group: Path) -> None:
    """Kills what is left in the group, and removes it."""
    deadline = time.monotonic() + EMPTYING_SECONDS
    while not _removed(group) and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel tells no other way
        await asyncio.sleep(0.001)


def _removed(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
        return True
    with suppress(OSError):
        for pid in (group / "cgroup.procs").read_bytes().split():
            os.kill(int(pid), signal.SIGKILL)
    return False
