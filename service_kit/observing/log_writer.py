"""Where log lines go: a queue, and one thread that writes them. No line makes its caller wait or fail."""

import atexit
import os
import select
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

MAX_WAITING_BYTES = 4 * 2**20
"""Lines beyond are lost, and counted."""
_WRITE_BYTES = 64 * 1024
_CLOSE_SECONDS = 1.0


class LogWriter(Collector):
    """A text stream to a file descriptor, and the metric of the lines that it lost.

    Lines are lost where nobody reads, where the disk is full, and where the descriptor is closed. The next ones are
    tried again.
    """

    current: ClassVar["LogWriter | None"] = None
    """The newest, to be closed by who ends the process without Python's own end."""

    def __init__(self, descriptor: int, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._descriptor = descriptor
        self._max_waiting_bytes = max_waiting_bytes
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting_bytes = 0
        self._lost = 0
        # Reentrant: a signal handler or a finalizer may log while its own thread is in here.
        self._counts = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        LogWriter.current = self

    def write(self, text: str) -> None:
        """Queues whole lines."""
        line = text.encode("utf-8", "backslashreplace")
        with self._counts:
            if self._waiting_bytes + len(line) > self._max_waiting_bytes:
                self._lost += 1
                return
            self._waiting_bytes += len(line)
        self._queue.put(line)

    def flush(self) -> None:
        """Does nothing: the thread writes as soon as it can."""

    def close(self, within_seconds: float = _CLOSE_SECONDS) -> None:
        """Waits for what is queued, but not for long."""
        self._queue.put(None)
        self._thread.join(within_seconds)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The metric (prometheus_client's Collector)."""
        yield CounterMetricFamily("onrecord_log_lost_lines", "Log lines that stderr did not take.", value=self._lost)

    def _run(self) -> None:
        while (lines := self._take()) is not None:
            written = self._write(b"".join(lines))
            with self._counts:
                for line in lines:
                    self._waiting_bytes -= len(line)
                    written -= len(line)
                    self._lost += written < 0

    def _take(self) -> list[bytes] | None:
        lines: list[bytes] = []
        size = 0
        try:
            while size < _WRITE_BYTES:
                line = self._queue.get(block=not lines)
                if line is None:
                    if lines:
                        self._queue.put(None)
                        break
                    return None
                lines.append(line)
                size += len(line)
        except Empty:
            pass
        return lines

    def _write(self, data: bytes) -> int:
        """Writes data, and returns how many bytes of it the descriptor took."""
        view: Any = memoryview(data)
        done = 0
        while done < len(data):
            try:
                done += os.write(self._descriptor, view[done:])
            except BlockingIOError:  # whoever started the process made the pipe non-blocking
                select.select([], [self._descriptor], [])
            except OSError:
                break
        return done
