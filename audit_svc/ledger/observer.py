"""What a store reports to metrics."""

from collections.abc import Sequence
from typing import Protocol

from onrecord.audit.v1 import audit_pb2


class StoreObserver(Protocol):
    """Called from any thread, once per commit or query. It never raises."""

    def committed(self, responses: Sequence[audit_pb2.RecordResponse], seconds: float) -> None:
        """Batches were committed and synced together."""
        ...

    def commit_failed(self) -> None:
        """A group of batches failed."""
        ...

    def suspected(self, rows: int) -> None:
        """Some rows of a commit have a time that contradicts the ledger's clock."""
        ...

    def queried(self, seconds: float) -> None:
        """A query has ended, successfully or not."""
        ...

    def throttled(self, seconds: float) -> None:
        """A query waited this long for a busy writer before it started; usually 0."""
        ...
