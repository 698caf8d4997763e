"""Kills what a program left behind, wherever it has gone, by a mark in its environment that all it starts inherits.

Each mark begins with the name of its gateway's run. A gateway that is killed can end nothing that it has begun: the
next one finds its name in the state directory, without a lock, and ends it instead.
"""

import os
import secrets
import signal
import time
from contextlib import suppress
from pathlib import Path

import structlog

from recording.locks import lock_file

log = structlog.get_logger(__name__)

_RUN = secrets.token_hex(16)

ROUNDS = 50
ROUND_SECONDS = 0.001
CLOCK_SECONDS = 0.02


def new_mark() -> str:
    """What no other program of this or any other gateway is marked with."""
    return f"{_RUN}-{secrets.token_hex(8)}"


class Run:
    """The name of a gateway's run in its state directory, for the next one to find should this one be killed."""

    def __init__(self, state_dir: Path) -> None:
        """Kills what killed gateways of state_dir had begun.

        Raises:
            OSError: state_dir cannot be written.
        """
        names = state_dir / "runs"
        names.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names.glob("[0-9a-f]" * len(_RUN)):
            if (lock := lock_file(name)) is not None:
                killed = kill_marked(f"={name.name}-", seconds_since_boot())
                log.warning("gateway.had_been_killed", processes_ended=killed)
                name.unlink()
                os.close(lock)
        self._name = names / _RUN
        while (own := lock_file(self._name)) is None:  # another that starts has seen it without its lock
            names.mkdir(mode=0o700, exist_ok=True)
            time.sleep(ROUND_SECONDS)
        self._lock = own

    def close(self) -> None:
        """Leaves nothing to find. Nothing that was marked is running any more."""
        self._name.unlink(missing_ok=True)
        os.close(self._lock)


def seconds_since_boot() -> float:
    """The time that kill_marked compares a process's start with."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def kill_marked(mark: str, started: float) -> int:
    """Kills all processes whose environment holds `mark`, such as "NAME=value", and returns how many.

    It looks again until none is found. `started` is when the first of them was started, by seconds_since_boot().
    """
    needle = mark.encode()
    killed: set[int] = set()
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
        killed.update(marked)
        if not marked and not unclear:
            break
        time.sleep(ROUND_SECONDS)
    return len(killed)


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
