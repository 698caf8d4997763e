"""Says where an event loop stands still: while one call holds it, nobody is answered."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import CollectorRegistry, Counter

log = structlog.get_logger(__name__)

STALL_SECONDS = 5.0
_EVERY_SECONDS = 1.0
_AGAIN_SECONDS = 0.5
"""How long the loop has besides, since the whole process may have been stopped for a while."""

_FRAMES = 30
"""The innermost ones."""


class LoopWatch:
    """A thread that asks the event loop for a sign of life.

    It needs the interpreter: a call into C that does not let it go is told by nobody.
    """

    def __init__(self, registry: CollectorRegistry, stall_seconds: float = STALL_SECONDS) -> None:
        self._stall_seconds = stall_seconds
        self._over = threading.Event()
        self.stalls = 0
        """How often the loop has stood still."""
        self._counter = Counter(
            "onrecord_loop_stalls", "How often the event loop stood still for 5 seconds.", registry=registry
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches the running loop while the body runs."""
        arguments = (asyncio.get_running_loop(), threading.get_ident())
        thread = threading.Thread(target=self._watch, args=arguments, name="loop-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        while not self._over.wait(_EVERY_SECONDS if self._stall_seconds > _EVERY_SECONDS else 0):
            alive = threading.Event()
            try:
                loop.call_soon_threadsafe(alive.set)
            except RuntimeError:  # it is closed
                return
            if not alive.wait(self._stall_seconds) and not alive.wait(_AGAIN_SECONDS) and not self._over.is_set():
                self._tell(thread_id)
            while not alive.wait(_EVERY_SECONDS) and not self._over.is_set():
                pass

    def _tell(self, thread_id: int) -> None:
        frame = sys._current_frames().get(thread_id)
        stack = [f"{at.filename}:{at.lineno} {at.name}" for at in traceback.extract_stack(frame)]
        log.error("loop.stalled", seconds=self._stall_seconds, stack=stack[-_FRAMES:])
        self._counter.inc()
        self.stalls += 1
