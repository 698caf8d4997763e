"""A disk on which the process, or the machine, dies in the middle of any call that changes something."""

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest


class Crash(BaseException):
    """The process ends here. No handler of the program's own may stop it."""


class CrashingDisk:
    """Counts the calls that change the disk, and dies in the one that it was armed for; knows what has been synced."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._left: int | None = None
        self._part = 0.0
        self._synced_bytes: dict[int, int] = {}
        self._synced_names: set[str] = set()
        for name in ("write", "pwrite", "ftruncate", "fdatasync", "fsync", "unlink", "open"):
            self._patch.setattr(os, name, self._crashing(name, getattr(os, name)))
        # A gap row tells times, whose digits take room: a failure can be replayed only when they stay as they are.
        self._patch.setattr(time, "time_ns", lambda: 1_790_000_000_000_000_000)

    def arm(self, calls: int, part: float) -> None:
        """Dies in the call after `calls` more; a write gets only that part of its bytes to the disk."""
        self._left, self._part = calls, part

    def disarm(self) -> None:
        """Dies no more."""
        self._left = None

    def restore(self) -> None:
        """Gives the process its own disk back."""
        self._patch.undo()

    def lose_power(self, state_dir: Path, seed: int) -> None:
        """Takes from state_dir any part of what was not synced, or puts zeros or other bytes in its place."""
        chance = random.Random(seed)
        files = sorted(state_dir.rglob("*.segment"))
        gone = False
        for path in files:
            gone = gone or (path.name not in self._synced_names and chance.random() < 0.3)
            if gone:
                path.unlink()
                continue
            data = path.read_bytes()
            kept = chance.randint(min(self._synced_bytes.get(path.stat().st_ino, 0), len(data)), len(data))
            tail = chance.choice([b"", bytes(len(data) - kept), chance.randbytes(len(data) - kept)])
            path.write_bytes(data[:kept] + tail)
        if chance.random() < 0.5:
            for path in state_dir.rglob("state"):
                path.write_bytes(chance.choice([b"", bytes(50)]))

    def copy(self, source: Path, target: Path) -> None:
        """Copies a state directory, and what is known to be synced of it."""
        shutil.copytree(source, target)
        for path in source.rglob("*.segment"):
            size = self._synced_bytes.get(path.stat().st_ino, 0)
            self._synced_bytes[(target / path.relative_to(source)).stat().st_ino] = size

    def _crashing(self, name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not (len(args) > 1 and args[1] & os.O_CREAT):
                return real(*args, **kwargs)
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    if name in ("write", "pwrite"):
                        real(args[0], args[1][: int(len(args[1]) * self._part)], *args[2:])
                    raise Crash
            result = real(*args, **kwargs)
            if name == "open":
                self._synced_bytes.pop(os.fstat(result).st_ino, None)  # a new file may get a deleted one's inode
            elif name == "fdatasync":
                found = os.fstat(args[0])
                self._synced_bytes[found.st_ino] = found.st_size
            elif name == "fsync" and (folder := Path(f"/proc/self/fd/{args[0]}")).is_dir():
                self._synced_names.update(path.name for path in folder.iterdir())
            return result

        return call
