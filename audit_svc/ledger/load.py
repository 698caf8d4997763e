"""How busy the writer is, for those who would take some of its time."""

import time
from collections.abc import Callable

WINDOW_SECONDS = 0.1

_BUSY = 0.5
"""The share of its time that the writer commits, from which on it is busy."""


class Load:
    """Used by one thread, which need not be the writer's."""

    def __init__(self, committing_seconds: Callable[[], float]) -> None:
        """committing_seconds: how long the writer has committed so far, in all."""
        self._committing_seconds = committing_seconds
        self._looked_at = time.monotonic()
        self._committed_before = committing_seconds()
        self._is_busy = False

    def is_busy(self) -> bool:
        """Whether commits took more than half of the time since the look before, a tenth of a second or more ago."""
        now = time.monotonic()
        if now >= self._looked_at + WINDOW_SECONDS:
            committed = self._committing_seconds()
            self._is_busy = committed - self._committed_before > _BUSY * (now - self._looked_at)
            self._committed_before, self._looked_at = committed, now
        return self._is_busy
