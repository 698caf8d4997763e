"""What the workers of a gateway know of each other at once: numbers in a file that all of them have mapped.

Each worker has a row of its own, and only it, or the supervisor once it is dead, writes there. What must not exceed a
limit of the gateway is counted under a lock of the file, which the kernel lets go when its holder dies.
"""

import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Self

_BUCKETS = 8192
_PROBES = 8
_CELL_BYTES = 8


class Field(IntEnum):
    """What a row tells of its worker."""

    STARTED = 0
    """1 once its settings, files and folders were found good."""
    SERVES = 1
    """1 while it can run turns."""
    TURNS = 2
    """Turns that run there or wait."""
    RUNNING = 3
    """Turns that run there."""
    CALLS = 4
    """RPCs under way there, but health's."""
    HEALTH_CALLS = 5
    """Health's RPCs under way there."""


class Table:
    """The table, as one of the processes has it."""

    def __init__(self, path: Path, workers: int, slot: int = -1) -> None:
        """Opens the table of so many workers; the file is made if it is missing. slot: the row of this process.

        Raises:
            OSError: the file cannot be had, or there is no room for it.
        """
        self.workers = workers
        self._slot = slot
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        cells = workers * len(Field)
        size = (cells + 3 * _BUCKETS) * _CELL_BYTES
        if os.fstat(self._fd).st_size < size:
            os.posix_fallocate(self._fd, 0, size)  # a page that finds no room later is SIGBUS to who writes to it
        self._map = mmap.mmap(self._fd, size)
        whole = memoryview(self._map)
        self._rows = whole[: cells * _CELL_BYTES].cast("q")
        # Of each caller: a hash of its name, its tokens, and when they were counted by the machine's monotonic clock.
        begin = cells * _CELL_BYTES
        self._keys = whole[begin : begin + _BUCKETS * _CELL_BYTES].cast("Q")
        self._levels = whole[begin + _BUCKETS * _CELL_BYTES :].cast("d")

    def set(self, field: Field, value: int) -> None:
        """Writes a field of this process's row."""
        self._rows[self._slot * len(Field) + field] = value

    def get(self, slot: int, field: Field) -> int:
        """A field of a worker's row."""
        return self._rows[slot * len(Field) + field]

    def sum(self, field: Field) -> int:
        """A field of all workers together."""
        return sum(self.get(slot, field) for slot in range(self.workers))

    def clear(self, slot: int) -> None:
        """Forgets a worker that is dead."""
        with self._locked():
            for field in Field:
                self._rows[slot * len(Field) + field] = 0

    def try_take(self, field: Field, limit: int) -> bool:
        """Counts one more in this process's row, unless there are `limit` in all rows; returns whether it did."""
        with self._locked():
            if self.sum(field) >= limit:
                return False
            self.set(field, self.get(self._slot, field) + 1)
            return True

    def release(self, field: Field) -> None:
        """Counts one less in this process's row."""
        self.set(field, self.get(self._slot, field) - 1)

    def take_token(self, who: str, rate: float, burst: float) -> float:
        """Takes a token of a caller's bucket, which has `burst` at most and gets `rate` a second.

        Returns how many tokens there were: below 1 none was taken.
        """
        key = int.from_bytes(hashlib.blake2b(who.encode(), digest_size=_CELL_BYTES).digest()) or 1
        now = time.monotonic()
        with self._locked():
            found = self._bucket(key, now, burst)
            level = min(burst, self._levels[2 * found] + (now - self._levels[2 * found + 1]) * rate)
            self._levels[2 * found], self._levels[2 * found + 1] = level - (level >= 1), now
            return level

    def _bucket(self, key: int, now: float, burst: float) -> int:
        """The place of a bucket. Of too many, the one that was used longest ago is forgotten."""
        places = [(key + probe) % _BUCKETS for probe in range(_PROBES)]
        for place in places:
            if self._keys[place] == key:
                return place
        place = min(places, key=lambda place: self._levels[2 * place + 1])
        self._keys[place], self._levels[2 * place], self._levels[2 * place + 1] = key, burst, now
        return place

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets the file go."""
        for view in (self._rows, self._keys, self._levels):
            view.release()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
