"""How much may wait for the disk: batches of streams and single ones have room of their own, and neither takes the
other's.
"""

from dataclasses import dataclass

from audit_svc.errors import QueueFull
from audit_svc.ledger.batch import Batch

QUEUE_BYTES = 64 * 2**20
"""Of requests, for each of the two. Rows of ordinary length meet the bound on rows first."""


@dataclass(slots=True)
class _Waiting:
    rows: int = 0
    size_bytes: int = 0


class Room:
    """Of one queue. Not thread-safe."""

    def __init__(self, rows: int) -> None:
        """rows: how many may wait of streams, and as many of single batches."""
        self._rows = rows
        self._of_streams, self._single = _Waiting(), _Waiting()

    @property
    def queued_rows(self) -> int:
        """How many wait. From any thread."""
        return self._of_streams.rows + self._single.rows

    def take(self, batch: Batch) -> None:
        """A batch waits from now on. One alone may be as large as it likes.

        Raises:
            QueueFull: too much is waiting.
        """
        waiting = self._waiting(batch)
        full = waiting.rows + len(batch) > self._rows or waiting.size_bytes + batch.size_bytes > QUEUE_BYTES
        if full and (waiting.rows or waiting.size_bytes):
            raise QueueFull(f"{waiting.rows} rows wait for the disk already")
        waiting.rows += len(batch)
        waiting.size_bytes += batch.size_bytes

    def give_back(self, batch: Batch) -> None:
        """A batch waits no longer."""
        waiting = self._waiting(batch)
        waiting.rows -= len(batch)
        waiting.size_bytes -= batch.size_bytes

    def _waiting(self, batch: Batch) -> _Waiting:
        return self._of_streams if batch.of_stream else self._single
