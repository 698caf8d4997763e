"""Who is told of what the store does, for metrics."""

from collections.abc import Sequence
from typing import Protocol

from onrecord.audit.v1 import audit_pb2


class StoreObserver(Protocol):
    """It is called from any thread, once a commit or a query, and never raises."""

    def committed(self, responses: Sequence[audit_pb2.RecordResponse], seconds: float) -> None:
        """Batches were committed and synced together."""
        ...

    def commit_failed(self) -> None:
        """Nothing of a group of batches was stored."""
        ...

    def queried(self, seconds: float) -> None:
        """A query has ended, however it did."""
        ...

    def throttled(self, seconds: float) -> None:
        """A query has waited so long for the writer's sake before it began; mostly 0."""
        ...
