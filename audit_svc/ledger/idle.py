"""Work for a writer's idle time, in steps of some milliseconds (the IdleWork protocol of group_commit).

A step runs when nothing is waiting, so a batch waits for one step at most.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from audit_svc.ledger.load import Load
from recording.upkeep import attempt

QUIET_SECONDS = 0.1
"""After a commit as long, no other is expected soon."""
OFTEN_SECONDS, SELDOM_SECONDS = 0.1, 1.0
"""While commits keep coming there is a step as often, the latter while the writer is busy."""
FAILED_SECONDS = 60.0
"""After a step that failed, as on a full disk, none is tried for as long."""

_END = object()


def _steps(work: Callable[[], Iterator[None]]) -> Iterator[None]:
    """Begins at the first step, whose failure is the work's."""
    yield from work()


class IdleSteps:
    """Goes on with what is committed. It is called by the writer's thread."""

    def __init__(
        self, works: Mapping[str, Callable[[], Iterator[None]]], foreseen: tuple[type[Exception], ...]
    ) -> None:
        """works: by the name of their task; each begins anew whenever rows may have come. foreseen: what they raise."""
        self._works = deque(works.items())
        self._foreseen = foreseen
        self._round: deque[tuple[str, Iterator[None]]] = deque()
        """The works that have not ended since they began last."""
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
        self._round = self._round or deque((task, _steps(work)) for task, work in self._works)
        while self._round:
            task, steps = self._round[0]
            with self._attempt(task) as tried:
                if next(steps, _END) is not _END:
                    break
            if tried.failed:
                self._failed_at = time.monotonic()
                self._round.clear()
                # What fails must not keep the other from its turn.
                self._works.rotate()
                break
            self._round.popleft()
        else:
            self._has_work = False
        self._stepped_at = time.monotonic()

    def _attempt(self, task: str) -> attempt:
        """Whatever it raises, the writer goes on."""
        return attempt(task, event="store.indexing_failed", foreseen=self._foreseen)
