"""The garbage collector of a service whose work is many short-lived objects."""

import gc
import time

RESTING = 0.05
"""Of a core: a service that uses less has few callers whom a look at everything could hold up."""
RESTED_SECONDS, BUSY_SECONDS = 30.0, 60.0
"""After so long everything is looked at once more, by a service that rests and by one that does not: an old cycle of a
few objects may hold large texts."""

_YOUNG, _ALL = 1, 2


def tune_collector() -> None:
    """Looks for cycles seldom, and not among what is there by now. Call it once all is loaded.

    Rows and their batches are without cycles, which are looked for at every 700 new objects by default. Those that
    there are go by Looks: see service_kit.freed_memory.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


class Looks:
    """Looks for cycles among what came since the last look, and seldom among everything.

    The interpreter does nothing else meanwhile, and nobody is answered. A gateway had 125,000 objects that stayed after
    10,800 calls in 131 s, of sessions in memory and turns that had ended. A look at all of them took 180 ms of CPU
    time. One at those of the last 5 s took 5 to 12 ms at 120 calls/s, however long it had run (10 s: 13 to 29 ms), and
    none to speak of at rest. Two cores, with others at work.
    """

    def __init__(self) -> None:
        self._at = self._all_at = time.monotonic()
        self._used = time.process_time()

    def look(self) -> None:
        """Frees the cycles that it finds. Call it from time to time, from any thread."""
        now = time.monotonic()
        rests = time.process_time() - self._used < RESTING * (now - self._at)
        if now - self._all_at >= (RESTED_SECONDS if rests else BUSY_SECONDS):
            gc.collect(_ALL)
            self._all_at = now
        else:
            gc.collect(_YOUNG)
        self._at, self._used = time.monotonic(), time.process_time()
