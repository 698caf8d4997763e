"""Queries yield to the writer: while it is busy, they get a bounded share of CPU time.

Writes must never wait for readers, and both need the same cores. Without a bound, readers that ask again at once take
two thirds of the writer's rate.
"""

import asyncio
import threading
import time

from audit_svc.ledger.load import Load

SHARE = 0.12
"""Seconds of CPU time a second for all queries together, while the writer is busy."""
BURST_SECONDS = 0.05
"""Of CPU time, that may be taken at once."""
MAX_WAIT_SECONDS = 1.0
"""The longest wait of a query, however many there are."""
MAX_CHARGE_SECONDS = 0.1
"""Of CPU time: a query that takes longer keeps those after it waiting as if it had taken so much."""

_ANSWER_SECONDS = 0.001
"""What an answer takes besides, of the event loop."""
_LOOK_AGAIN_SECONDS = 0.05


class Throttle:
    """Admits queries in the order in which they came."""

    def __init__(self, load: Load) -> None:
        """load: the writer's."""
        self._load = load
        self._entrance = asyncio.Lock()
        self._lock = threading.Lock()
        self._credit = BURST_SECONDS
        self._credited_at = time.monotonic()

    async def wait(self) -> float:
        """Until a query may begin; returns the seconds that it took, 0 where nothing was waited for."""
        began = time.monotonic()
        if not self._entrance.locked() and not self._debt():
            return 0.0
        async with self._entrance:
            while pause := self._pause(began + MAX_WAIT_SECONDS):  # noqa: ASYNC110 - only time passes: no event ends it
                await asyncio.sleep(pause)
        return time.monotonic() - began

    def spent(self, cpu_seconds: float) -> None:
        """Charges a query's CPU time. From any thread."""
        with self._lock:
            self._credit -= min(cpu_seconds, MAX_CHARGE_SECONDS) + _ANSWER_SECONDS

    def _pause(self, give_up: float) -> float:
        """Seconds until the first in line should look again; 0 when it may begin."""
        left = max(0.0, give_up - time.monotonic())
        return min(self._debt() / SHARE, left, _LOOK_AGAIN_SECONDS)

    def _debt(self) -> float:
        """CPU time that was taken beyond the share; 0 while the writer has time."""
        is_busy, now = self._load.is_busy(), time.monotonic()
        with self._lock:
            credit = self._credit + SHARE * (now - self._credited_at) if is_busy else BURST_SECONDS
            self._credit, self._credited_at = min(credit, BURST_SECONDS), now
            return max(0.0, -self._credit)
