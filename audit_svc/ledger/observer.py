"""What the metrics hear from a store."""

from collections.abc import Sequence
from typing import Protocol

from onrecord.audit.v1 import audit_pb2


class StoreObserver(Protocol):
    """Called from any thread, once per commit or query. It never raises."""

    def committed(self, responses: Sequence[audit_pb2.RecordResponse], seconds: float) -> None:
        """Batches were committed and synced together."""
        ...

    def commit_failed(self) -> None:
        """Nothing of a group of batches was stored."""
        ...

    def suspected(self, rows: int) -> None:
        """So many rows of a commit have a time that the ledger's clock contradicts."""
        ...

    def queried(self, seconds: float) -> None:
        """A query has ended, however it did."""
        ...

    def throttled(self, seconds: float) -> None:
        """A query waited this long for the writer before it began; mostly 0."""
        ...
