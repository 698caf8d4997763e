"""The background thread of a spool."""

import threading
from collections.abc import Callable

from recording.upkeep import attempt

_IDLE_SECONDS = 1.0
_REST_SECONDS = 1.0


class Keeper:
    """Calls tick after wake(), at most once an interval, in a thread that is there only while there is work."""

    def __init__(self, name: str, interval_seconds: float, tick: Callable[[], None]) -> None:
        self._name = name
        self._interval_seconds = interval_seconds
        self._tick = tick
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stopped = False
        self._lock = threading.RLock()
        """Guards the thread's beginning and end. While wake is set, there is a thread, or it is stopped: so wake is set
        last, and a handler of a signal that raises before leaves the next call all to do."""
        self._starter: int | None = None
        """Who is starting the thread: a handler of a signal that runs there, and forks, leaves it alone."""
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Schedules tick within an interval. Costs almost nothing if it is already due."""
        if self._wake.is_set():
            return
        with self._lock:
            self._starter = threading.get_ident()
            try:
                self._begin()
            except BaseException:  # a signal's handler raised: what is due stays due
                self._begin()
                raise
            finally:
                self._starter = None

    def _begin(self) -> None:
        if not self._stopped and not self._has_thread():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system has no thread left: the next call tries again
                return
        self._wake.set()

    def _has_thread(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Ends the thread for good, after a running tick."""
        with self._lock:
            self._stopped = True
        self._stopping.set()
        self._end_thread(None)

    def rest(self) -> None:
        """Ends the thread, so that a fork finds none; a tick that takes long is not waited for. See resume()."""
        self._end_thread(_REST_SECONDS)

    def resume(self) -> None:
        """Goes on with what was due."""
        if self._starter == threading.get_ident():
            return
        with self._lock:
            due = self._wake.is_set() and not self._has_thread()
            if due:
                self._wake.clear()
        if due:
            self.wake()

    def _end_thread(self, timeout: float | None) -> None:
        if self._starter == threading.get_ident():
            return
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            return
        thread = self._thread  # one that another thread was just starting has begun now
        self._lock.release()
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            return
        was_due = self._wake.is_set()
        self._stopping.set()
        self._wake.set()
        thread.join(timeout)
        with self._lock:
            if self._thread is thread and not thread.is_alive():  # or a handler's fork began another
                self._thread = None
                if not was_due:
                    self._wake.clear()
            if not self._stopped:
                self._stopping.clear()

    def _run(self) -> None:
        # No lock is taken at the start: a child of a fork of which Python is not told would find it held.
        this = threading.current_thread()
        # It begins when something is due, and is not woken for that: who forks beside a thread that wants the GIL has
        # a child in which CPython's drop_gil() waits for that thread.
        while True:
            if self._stopping.wait(self._interval_seconds) or self._thread is not this:
                return
            self._wake.clear()
            if self._stopping.is_set():  # the clear may have taken its wake
                self._wake.set()
                return
            with attempt("the spool", event="spool.keeper_failed") as tried:
                self._tick()
            if tried.failed:
                self._wake.set()
            if not self._wake.wait(_IDLE_SECONDS):
                with self._lock:
                    if self._thread is this and not self._wake.is_set():
                        self._thread = None
            if self._thread is not this:  # it was idle, or its start was cut off, and another one was begun
                return
