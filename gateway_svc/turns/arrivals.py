"""Turns that arrive together are all accepted before they work.

gRPC hands over the calls of a method one by one, each some rounds of the event loop after the one before. The more
turns work, the longer a round takes: of 300 turns at once the last were accepted when most others had ended.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

BURST = 8
"""How many turns that arrive within BURST_SECONDS are taken for a burst: more than a gateway could serve that fast."""
BURST_SECONDS = 0.1
MOST_SECONDS = 3.0
"""The longest that turns wait for others to arrive, so that a caller who sends turns without end holds up nobody."""
_ROUNDS = 12
_ROUND_SECONDS = 0.002
"""A burst is over once nobody arrived for that many rounds of the loop, each of at least that time."""


class Arrivals:
    """Knows when turns arrive, and has those of a burst wait until it is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._times: deque[float] = deque(maxlen=BURST)
        self._arrived = 0
        self._burst: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self._one_by_one = asyncio.Lock()

    def note(self) -> None:
        """Notes that a turn arrives."""
        now = self._clock()
        self._times.append(now)
        self._arrived += 1
        is_burst = len(self._times) == BURST and now - self._times[0] <= BURST_SECONDS
        if is_burst and self._burst is None and now >= self._rest_until:
            self._burst = asyncio.create_task(self._see_off(now))

    async def over(self) -> None:
        """Waits while a burst lasts. Who waited goes on one by one, so that no round of the loop has all their work."""
        if self._burst is None:
            return
        await asyncio.wait([self._burst])
        async with self._one_by_one:
            await asyncio.sleep(0)

    async def _see_off(self, began: float) -> None:
        seen = 0
        while seen != self._arrived and self._clock() - began < MOST_SECONDS:
            seen = self._arrived
            for _ in range(_ROUNDS):
                await asyncio.sleep(_ROUND_SECONDS)
        ended = self._clock()
        self._rest_until = ended + (ended - began)  # in an endless burst turns work at least half of the time
        self._burst = None
