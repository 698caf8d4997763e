"""The background thread of a spool."""

import threading
from collections.abc import Callable

from recording.upkeep import attempt


class Keeper:
    """Calls tick after wake(), at most once an interval."""

    def __init__(self, name: str, interval_seconds: float, tick: Callable[[], None]) -> None:
        self._interval_seconds = interval_seconds
        self._tick = tick
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Schedules tick within an interval. Costs almost nothing if it is already due."""
        if not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        """Ends the thread, after a running tick."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._stopping.wait(self._interval_seconds):
                return
            self._wake.clear()
            if self._stopping.is_set():  # the clear may have taken stop()'s wake
                return
            with attempt("the spool", event="spool.keeper_failed") as tried:
                self._tick()
            if tried.failed:
                self._wake.set()
