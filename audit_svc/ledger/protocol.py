"""What a store of the ledger can do. tests/ledger holds every store to it."""

from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.ledger.batch import Batch
from audit_svc.ledger.pages import Page
from audit_svc.ledger.pruning import Progress
from audit_svc.ledger.query import Filter, Query
from service_kit.paging import Position

TAIL_ROWS = 1000
"""Positions that one call of tool_calls_after() goes through at most."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What was committed after a position."""

    rows: list[questions_pb2.ToolCallRecord]
    """Those that the filter lets through, in the order of their commits."""
    position: int
    """How far it has looked."""
    last_position: int
    """Of the last row that is committed."""


class ReadableLedger(Protocol):
    """A ledger that answers queries.

    Each row has a position, a number above those of all rows that were committed before it. Listings go by
    (created_at, id), the newest first; exports and timelines the oldest first. A cancelled call ends its work. Any call
    may raise StoreUnavailable, StoreClosed, or Damaged.
    """

    async def list_tool_calls(self, query: Query) -> Page[questions_pb2.ToolCallRecord]:
        """A page of tool calls. It may be short, or empty, though another follows."""
        ...

    async def list_sessions(self, query: Query) -> Page[questions_pb2.SessionRecord]:
        """A page of sessions."""
        ...

    async def get_session(self, query: Query) -> tuple[questions_pb2.SessionRecord, Page[questions_pb2.Entry]]:
        """A session and a page of its timeline. Raises NotFound."""
        ...

    async def summarize_usage(self, query: Query) -> Page[questions_pb2.UsageGroup]:
        """A page of groups in the order of their names; without group_by one, also when nothing was used."""
        ...

    async def list_queries(self, query: Query) -> Page[administration_pb2.QueryRow]:
        """A page of the log of queries."""
        ...

    async def export_tool_calls(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[questions_pb2.ToolCallRecord]:
        """The next rows of an export, fewer than size at its end.

        after: (created_at_ms, id) of the last row before them. last_position: what was committed later is left out.
        """
        ...

    async def last_position(self) -> int:
        """The position of the last tool call that is committed; 0 when there is none."""
        ...

    async def tool_calls_after(self, wanted: Filter, position: int) -> Tail:
        """Tool calls that were committed after position, as many as one message holds."""
        ...

    def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> Awaitable[None]:
        """Adds to the log of queries; their ids are given by the store. Raises what record() raises."""
        ...

    async def close(self) -> None:
        """Ends what is under way and lets the database go."""
        ...


class Ledger(ReadableLedger, Protocol):
    """A ledger that is written to: a service has one."""

    @property
    def queued_rows(self) -> int:
        """Rows that wait for their commit. From any thread."""
        ...

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        """Queues batch at once, so that batches are written in the order of the calls. What is returned is done when
        batch is committed and synced. The batch is written even if nobody waits for it any more.

        Raises:
            QueueFull: too many rows wait already. This and the next are raised by the call, not by what it returns.
            StoreClosed: the ledger was closed.
            DiskFull, StoreUnavailable: nothing of the batch was stored. Raised by what it returns.
        """
        ...

    async def why_no_commit(self) -> str:
        """Tries a commit: why it cannot be done, empty when it can."""
        ...

    def prune(self, before_ms: int, by: str, *, confirm_clock: bool = False) -> AsyncGenerator[Progress, None]:
        """Removes what began before before_ms, a whole hour, and tells after each batch how far it is.

        confirm_clock: an operator says that the clock is right; this is put into the log of queries.

        Raises:
            ClockJumped: the clock shows a time that must be confirmed.
            AlreadyRunning: another prune is.
            StoreClosed, DiskFull, StoreUnavailable: what was removed until then is gone, and the next prune goes on.
        """
        ...

    async def reset_mark(self, before_ms: int, by: str) -> Progress:
        """Sets the time that the ledger is pruned to back to before_ms, where it is later. What was removed stays so.

        It is put into the log of queries.

        Raises:
            AlreadyRunning: a prune is.
            StoreClosed, DiskFull, StoreUnavailable: the mark is as it was.
        """
        ...

    async def count_prunable(self, before_ms: int) -> Progress:
        """What a prune would remove now."""
        ...

    async def unfinished_prune(self) -> int | None:
        """The time of a prune that has not ended, in milliseconds since 1970-01-01 UTC."""
        ...

    async def back_up(self) -> tuple[BinaryIO, int]:
        """A checked copy of the ledger as it is now, open at its start, and how many rows of producers it has.

        It has no name, and is gone once closed.

        Raises:
            Unsupported: copies of this store are made by its database's own means.
            AlreadyRunning: another copy is being made.
            StoreRefused, DiskFull, StoreClosed: it cannot be made.
        """
        ...
