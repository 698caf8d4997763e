"""The store: where rows go and come from. SQLite is known in this package alone."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import Batch, Values
from audit_svc.sqlite.care.housekeeping import Housekeeping

R = TypeVar("R")
T = TypeVar("T")


class ReadStore(Protocol):
    """A ledger's database as far as it is asked."""

    async def ask(self, question: Callable[[Any, R], T], request: R, *, heavy: bool = False) -> T:
        """What question, a function of this package on a connection and a request, says. What it raises is raised.

        A cancellation ends the query. heavy: it may take long, and must not keep others waiting.
        """
        ...

    def log_queries(self, queries: Sequence[Values]) -> Awaitable[None]:
        """Puts rows into the log of queries (but for their ids) with the next commit. Raises what record() raises."""
        ...


class Store(ReadStore, Protocol):
    """The ledger's database."""

    housekeeping: Housekeeping

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        """Queues batch at once, so that batches are written in the order of the calls; what it returns is done when
        batch is committed and synced. The batch is written even if nobody waits for it any more.

        Raises:
            QueueFull: too many rows wait already. This and the next are raised by the call, not by what it returns.
            StoreClosed: the store was closed.
            DiskFull, StoreUnavailable: nothing of the batch was stored. Raised by what it returns.
        """
        ...

    async def close(self) -> None:
        """Commits what has queued, answers it, and lets the database go."""
        ...
