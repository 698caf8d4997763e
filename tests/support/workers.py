"""The processes below a service, as the kernel sees them."""

from pathlib import Path

from demo.processes import Service


def workers_of(service: Service) -> list[int]:
    """The ids of the processes that its main thread has started, by their age."""
    return [int(pid) for pid in Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()]
