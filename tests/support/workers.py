"""The processes below a service, as the kernel sees them."""

from pathlib import Path

from demo.processes import Service


def workers_of(service: Service) -> list[int]:
    """The ids of the processes that its main thread has started, by their age."""
    return [int(pid) for pid in Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()]


def has_ended(pid: int) -> bool:
    """Whether a process runs no more, though nobody may have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
