"""Upkeep: what a process does again and again beside its calls, such as pruning, indexing and sending.

None of it ends by an exception: the log says so, a metric counts it, and health's detail tells it until the same task
succeeds.
"""

import time
from collections import Counter
from types import TracebackType
from typing import Self

from recording.log import get_logger

log = get_logger(__name__)

LOG_AGAIN_SECONDS = 60.0
"""A task that goes on failing alike is logged as often."""

failures: Counter[str] = Counter()
"""By task, since the process began."""
_failing: dict[str, str] = {}
_logged_at: dict[str, float] = {}


def why_failing() -> str:
    """Which tasks failed when they were tried last, for people; empty while none did."""
    return "; ".join(f"{task} fails: {error}" for task, error in sorted(_failing.items()))


class attempt:  # noqa: N801 - read as a statement: with attempt("indexing")
    """One try of a task: an exception in the body ends the body alone. Cancellation passes."""

    def __init__(self, task: str, *, event: str = "upkeep.failed", foreseen: tuple[type[Exception], ...] = ()) -> None:
        """event: of the line in the log. foreseen: errors whose words are ours, and are logged without a traceback."""
        self.failed = False
        self._task = task
        self._event = event
        self._foreseen = foreseen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if error is None:
            _failing.pop(self._task, None)
            _logged_at.pop(self._task, None)
        elif isinstance(error, Exception):
            self.note(error)
            return True
        return False

    def note(self, error: Exception) -> None:
        """The task has failed so."""
        self.failed = True
        failures[self._task] += 1
        name = type(error).__name__
        now, before = time.monotonic(), _logged_at.get(self._task, float("-inf"))
        if _failing.get(self._task) != name or now >= before + LOG_AGAIN_SECONDS:
            _logged_at[self._task] = now
            if isinstance(error, self._foreseen):
                log.warning(self._event, task=self._task, error=name, reason=str(error))
            else:
                log.error(self._event, task=self._task, error=name, exc_info=error)
        _failing[self._task] = name
