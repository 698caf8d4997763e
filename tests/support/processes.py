"""The processes of this machine."""

from pathlib import Path


def processes_of(mark: str) -> list[int]:
    """The processes that have a text in their command lines, but for gateways, which are given it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in command and b"gateway_svc" not in command:
                found.append(int(entry.name))
    return found
