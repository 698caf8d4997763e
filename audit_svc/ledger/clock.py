"""The ledger's clock, whose single reading never decides anything irreversible."""

import time

from audit_svc.errors import ClockJumped
from audit_svc.ledger.steps import DAY_MS

MAX_JUMP_MS = DAY_MS
"""More than that ahead of what has passed since the last look, and the clock is not believed."""
MAX_AHEAD_MS = DAY_MS
"""A row that began more than that after the ledger's own time is suspect: one of the two clocks is wrong."""


def wall_ms() -> int:
    """Milliseconds since 1970-01-01 UTC, by the wall clock."""
    return time.time_ns() // 1_000_000


class SeenClock:
    """Follows the clock from a time at which it was believed. It may be set back, and not ahead of what has passed.

    Time in which the machine slept counts as passed; time in which no process looked does not.
    """

    def __init__(self, seen_ms: int | None) -> None:
        """seen_ms: when an earlier process believed the clock last; None where none ever looked."""
        self._seen_ms = wall_ms() if seen_ms is None else seen_ms
        self._uptime = _uptime_ms()

    @property
    def seen_ms(self) -> int:
        """When the clock was believed last, by itself."""
        return self._seen_ms

    def jump_ms(self) -> int:
        """How far the clock is ahead of what has passed since then; 0 where it is believed."""
        ahead = wall_ms() - self._seen_ms - (_uptime_ms() - self._uptime)
        return ahead if ahead > MAX_JUMP_MS else 0

    def why_jumped(self) -> str:
        """How far the clock jumped, and what to do about it, for people; empty where it is believed."""
        if jump := self.jump_ms():
            return (
                f"the ledger's clock is {jump // DAY_MS} days ahead of what it last showed, and nobody watched that "
                "time pass: nothing is pruned. Look at the clock; if it is right, run `audit-svc prune --confirm-clock`"
            )
        return ""

    def look(self) -> bool:
        """Whether the clock is believed; if it is, what has passed is counted from now on."""
        if self.jump_ms():
            return False
        self.confirm()
        return True

    def confirm(self) -> None:
        """Believes the clock as it is."""
        self._seen_ms, self._uptime = wall_ms(), _uptime_ms()

    def refuse_jump(self) -> None:
        """Believes the clock, or refuses.

        Raises:
            ClockJumped: it is further ahead than can have passed.
        """
        if reason := self.why_jumped():
            raise ClockJumped(reason)
        self.confirm()


def _uptime_ms() -> int:
    # macOS has no CLOCK_BOOTTIME, and its CLOCK_MONOTONIC goes on while the machine sleeps.
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000
