"""Kills what a program left behind, wherever it has gone, by a mark in its environment that all it starts inherits."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

ROUNDS = 50
ROUND_SECONDS = 0.001
CLOCK_SECONDS = 0.02


def seconds_since_boot() -> float:
    """The time that kill_marked compares a process's start with."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def kill_marked(variable: str, started: float) -> None:
    """Kills all processes whose environment holds `variable`, "NAME=value"; again until none is found.

    `started` is when the first of them was started, by seconds_since_boot().
    """
    needle = variable.encode()
    for _ in range(ROUNDS):
        unclear = False
        marked: list[int] = []
        for pid in _processes():
            environment = _environment(pid)
            if needle in environment:
                marked.append(pid)
            elif not environment and _is_becoming_another(pid, started):
                unclear = True
        for pid in marked:
            with suppress(OSError):
                _kill_if_marked(pid, needle)
        if not marked and not unclear:
            return
        time.sleep(ROUND_SECONDS)


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


def _is_becoming_another(pid: int, started: float) -> bool:
    """Whether a process that was started since is in the middle of an exec, where for a moment it shows none."""
    try:
        Path(f"/proc/{pid}/exe").readlink()  # fails for one that has ended, and for the kernel's own
        start_ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return False
    return start_ticks / os.sysconf("SC_CLK_TCK") >= started - CLOCK_SECONDS
