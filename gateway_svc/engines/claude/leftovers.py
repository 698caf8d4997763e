"""Processes that a program's tools left behind, found by a mark in their environment wherever they have gone."""

import os
import signal
from contextlib import suppress
from pathlib import Path

MARKER = "ONRECORD_TURN"
ROUNDS = 10


def kill_marked(mark: str) -> None:
    """Kills all processes whose environment holds the mark; again, since one may start another, until none is found."""
    needle = f"{MARKER}={mark}".encode()
    for _ in range(ROUNDS):
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
