"""The store: where rows go and come from. SQLite is known in this package alone."""

from collections.abc import Awaitable
from typing import Protocol

from onrecord.audit.v1 import audit_pb2

from audit_svc.store.housekeeping import Housekeeping
from audit_svc.store.rows import Batch


class Store(Protocol):
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

    async def list_tool_calls(self, request: audit_pb2.ListToolCallsRequest) -> audit_pb2.ListToolCallsResponse:
        """One page of audit rows, by (created_at, id) descending. Raises InvalidPage."""
        ...

    async def list_sessions(self, request: audit_pb2.ListSessionsRequest) -> audit_pb2.ListSessionsResponse:
        """One page of sessions, by (created_at, id) descending. Raises InvalidPage."""
        ...

    async def get_session(self, session_id: str) -> audit_pb2.SessionRow:
        """The session. Raises NotFound."""
        ...

    async def close(self) -> None:
        """Commits what has queued, answers it, and lets the database go."""
        ...
