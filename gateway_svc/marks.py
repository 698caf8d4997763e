"""Kills the processes that a program left behind, by a mark in their environment, which every child inherits.

Each mark begins with the id of the gateway's run. A gateway that is killed cannot clean up; the next one finds its run
in the state directory, unlocked, and kills what that run had started.
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
    """A mark that no other program of any gateway has."""
    return f"{_RUN}-{secrets.token_hex(8)}"


class Run:
    """A gateway's run, as a locked file in its state directory, for the next gateway to find if this one is killed."""

    def __init__(self, state_dir: Path) -> None:
        """Kills what earlier gateways with this state_dir left running when they were killed.

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
        while (own := lock_file(self._name)) is None:  # another gateway that starts saw it unlocked
            names.mkdir(mode=0o700, exist_ok=True)
            time.sleep(ROUND_SECONDS)
        self._lock = own

    def close(self) -> None:
        """Removes the file. Call it when nothing that was marked is running any more."""
        self._name.unlink(missing_ok=True)
        os.close(self._lock)


def seconds_since_boot() -> float:
    """The clock that kill_marked compares start times of processes with."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def kill_marked(mark: str, started: float) -> int:
    """Kills all processes whose environment contains `mark`, such as "NAME=value", and returns how many.

    Repeats until none is found. `started` is when the first of them was started, by seconds_since_boot().
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
        # Checked again: the pid may have been reused before the descriptor was opened.
        if needle in _environment(pid):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # another user's process, or one that has ended
        return b""


def _is_becoming_another(pid: int, started: float) -> bool:
    """Whether a process started since then is in the middle of an exec, when its environment is empty for a moment."""
    try:
        Path(f"/proc/{pid}/exe").readlink()  # fails for zombies and kernel threads
        start_ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return False
    return start_ticks / os.sysconf("SC_CLK_TCK") >= started - CLOCK_SECONDS
