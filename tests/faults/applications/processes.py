"""The processes of a round that are nobody's children any more: found by their session or by their open files."""

import os
import signal
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def of_sessions(sessions: set[int]) -> list[int]:
    """Those in one of the sessions that have not ended, in order of their ids."""
    return sorted(pid for pid in _all() if _is_alive_in(pid, sessions))


def with_files_in(folder: Path) -> list[int]:
    """Those that have a file or folder open below folder, this process apart."""
    return [pid for pid in _all() if pid != os.getpid() and _has_open(pid, folder)]


def send(pid: int, number: signal.Signals, sessions: set[int]) -> bool:
    """Sends a signal to a process of one of the sessions; False if it is gone, whoever has its id by now."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if _is_alive_in(pid, sessions):
            signal.pidfd_send_signal(fd, number)
            return True
    except OSError:
        pass
    finally:
        os.close(fd)
    return False


def session_of(pid: int) -> int:
    """Its session; 0 if it is gone."""
    return _stat(pid)[1]


def _all() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]


def _is_alive_in(pid: int, sessions: set[int]) -> bool:
    state, session = _stat(pid)
    return session in sessions and state not in ("Z", "X")


def _stat(pid: int) -> tuple[str, int]:
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[3])


def _has_open(pid: int, folder: Path) -> bool:
    with suppress(OSError):
        for fd in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                if fd.readlink().is_relative_to(folder):
                    return True
    return False
