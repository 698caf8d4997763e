"""The processes of this machine."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def processes_of(mark: str) -> list[int]:
    """The processes that have a text in their command lines, but for gateways, which are given it."""
    found = []
    for pid in _all():
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if mark.encode() in command and b"gateway_svc" not in command:
                found.append(pid)
    return found


def children_of(parent: int) -> list[int]:
    """The processes that a process has started and not waited for, by their age.

    The kernel's own list, /proc/PID/task/TID/children, leaves some out while others end, and not every kernel has it.
    """
    found = []
    for pid in _all():
        with suppress(OSError):
            status = _status(pid)
            if int(status[1]) == parent:
                found.append((int(status[19]), pid))
    return [pid for _, pid in sorted(found)]


def parent_of(pid: int) -> int:
    """The process that has started it. Raises OSError where it is gone."""
    return int(_status(pid)[1])


def has_ended(pid: int) -> bool:
    """Whether a process runs no more, though nobody may have waited for it yet."""
    try:
        return _status(pid)[0] in "ZX"
    except OSError:
        return True


def is_stopped(pid: int) -> bool:
    """Whether a process stands still since it was sent SIGSTOP. Raises OSError where it is gone."""
    return _status(pid)[0] == "T"


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _status(pid: int) -> list[str]:
    """What /proc/PID/stat has behind the program's name, proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
