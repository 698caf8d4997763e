"""Work for a writer's idle time, in steps of some milliseconds (the IdleWork protocol of group_commit).

A step runs when nothing is waiting, so a batch waits for one step at most.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from audit_svc.ledger.load import Load
from recording.upkeep import attempt

QUIET_SECONDS = 0.1
"""After a commit as long, no other is expected soon."""
OFTEN_SECONDS, SELDOM_SECONDS = 0.1, 1.0
"""While commits keep coming there is a step as often, the latter while the writer is busy."""
FAILED_SECONDS = 60.0
"""After a step that failed, as on a full disk, none is tried for as long."""

_END = object()


class IdleSteps:
    """Goes on with what is committed. It is called by the writer's thread."""

    def __init__(self, works: Sequence[Callable[[], Iterator[None]]], foreseen: tuple[type[Exception], ...]) -> None:
        """works: each begins anew whenever rows may have come. foreseen: what their steps may raise."""
        self._works = deque(works)
        self._foreseen = foreseen
        self._steps: Iterator[None] | None = None
        self._has_work = True
        self._committed_at = self._stepped_at = self._failed_at = float("-inf")
        self._committing_seconds = 0.0
        self._load = Load(lambda: self._committing_seconds)

    def committed(self, committing_seconds: float) -> None:
        """Rows may have come. committing_seconds: how long commits have taken in all."""
        self._committed_at, self._committing_seconds = time.monotonic(), committing_seconds
        self._has_work = True

    def pause(self) -> float | None:
        """Seconds until the next step is due; None when there is nothing to do until rows come."""
        if not self._has_work:
            return None
        rest = SELDOM_SECONDS if self._load.is_busy() else OFTEN_SECONDS
        due = min(self._committed_at + QUIET_SECONDS, self._stepped_at + rest)
        return max(0.0, max(due, self._failed_at + FAILED_SECONDS) - time.monotonic())

    def step(self) -> None:
        """Some milliseconds of work, in a transaction of its own where it writes."""
        self._steps = self._steps or chain.from_iterable(work() for work in tuple(self._works))
        if not self._attempt(self._step):
            self._steps = None
            # What fails must not keep the other from its turn.
            self._works.rotate()
        if not self._has_work:
            self._steps = None
        self._stepped_at = time.monotonic()

    def _step(self) -> None:
        self._has_work = next(self._steps or iter(()), _END) is not _END

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Whether it went well. Whatever it raises, the writer goes on."""
        with attempt("indexing", event="store.indexing_failed", foreseen=self._foreseen) as tried:
            work()
        if tried.failed:
            self._failed_at = time.monotonic()
        return not tried.failed
