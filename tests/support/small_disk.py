"""A file system of its own with 1 MiB."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def mounted_at(path: Path) -> Iterator[Path]:
    """Mounts one; the test is skipped where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs privileges that this machine does not give")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def hog(disk: Path) -> Path:
    """Takes all the room there is."""
    path = disk / "hog"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path
