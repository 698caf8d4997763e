"""The protocol of a ledger's store. tests/ledger runs the same suite against every store."""

from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.ledger.batch import Batch
from audit_svc.ledger.erasing import ErasingProgress, Erasure
from audit_svc.ledger.holds import Act
from audit_svc.ledger.pages import Page
from audit_svc.ledger.pruning import Progress
from audit_svc.ledger.query import Filter, Query
from service_kit.paging import Position

TAIL_ROWS = 1000
"""The most positions that one call of tool_calls_after() or model_requests_after() reads."""

Record = TypeVar("Record", bound=Any)


@dataclass(frozen=True, slots=True)
class Tail(Generic[Record]):
    """What was committed after a position."""

    rows: list[Record]
    """Those that the filter lets through, in the order of their commits."""
    position: int
    """How far it has looked."""
    last_position: int
    """The position of the last committed row."""


class ReadableLedger(Protocol):
    """A ledger that answers queries.

    Each row has a position, a number above those of all rows of its kind committed before it. Listings are ordered by
    (created_at, position), the newest first; exports and timelines the oldest first. Cancelling a call ends its work.
    Any call may raise StoreUnavailable, StoreClosed, or Damaged.
    """

    async def list_tool_calls(self, query: Query) -> Page[questions_pb2.ToolCallRecord]:
        """A page of tool calls. It may be short, or empty, though another follows."""
        ...

    async def list_model_requests(self, query: Query) -> Page[questions_pb2.ModelRequestRecord]:
        """A page of model requests. It may be short, or empty, though another follows."""
        ...

    async def list_sessions(self, query: Query) -> Page[questions_pb2.SessionRecord]:
        """A page of sessions."""
        ...

    async def list_controls(self, query: Query) -> Page[questions_pb2.ControlRecord]:
        """A page of acts of control."""
        ...

    async def list_producers(self, query: Query) -> Page[questions_pb2.Producer]:
        """A page of producers, by id and name."""
        ...

    async def get_session(self, query: Query) -> tuple[questions_pb2.SessionRecord, Page[questions_pb2.Entry]]:
        """A session and a page of its timeline. Raises NotFound."""
        ...

    async def summarize_usage(self, query: Query) -> Page[questions_pb2.UsageGroup]:
        """A page of groups, by their names or by cost; without group_by one, also when nothing was used."""
        ...

    async def list_queries(self, query: Query) -> Page[administration_pb2.QueryRow]:
        """A page of the log of queries."""
        ...

    async def export_tool_calls(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[questions_pb2.ToolCallRecord]:
        """The next rows of an export, fewer than size at its end.

        after: (created_at_ms, position) of the last row before them. last_position: rows committed later are left out.
        """
        ...

    async def last_position(self) -> int:
        """The position of the last committed tool call; 0 if there is none."""
        ...

    async def tool_calls_after(self, wanted: Filter, position: int) -> Tail[questions_pb2.ToolCallRecord]:
        """Tool calls committed after position, as many as fit in one message."""
        ...

    async def export_model_requests(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[questions_pb2.ModelRequestRecord]:
        """As export_tool_calls(), of model requests."""
        ...

    async def last_request_position(self) -> int:
        """The position of the last committed model request; 0 if there is none."""
        ...

    async def model_requests_after(self, wanted: Filter, position: int) -> Tail[questions_pb2.ModelRequestRecord]:
        """Model requests committed after position, as many as fit in one message."""
        ...

    def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> Awaitable[None]:
        """Adds to the log of queries; their ids are given by the store. Raises what record() raises."""
        ...

    async def close(self) -> None:
        """Cancels running work and closes the database."""
        ...


class Ledger(ReadableLedger, Protocol):
    """A writable ledger: a service has one."""

    @property
    def queued_rows(self) -> int:
        """The number of rows waiting for their commit. Thread-safe."""
        ...

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        """Queues a batch immediately, so that batches are written in the order of the calls. The awaitable is done when
        the batch is committed and synced. The batch is written even if nobody waits for it.

        Raises:
            QueueFull: too many rows are waiting. This and the next are raised by the call, not by the awaitable.
            StoreClosed: the ledger was closed.
            DiskFull, StoreUnavailable: nothing of the batch was stored. Raised by the awaitable.
        """
        ...

    async def why_no_commit(self) -> str:
        """Tries a commit: why it fails, or empty if it succeeds."""
        ...

    def prune(self, before_ms: int, by: str, *, confirm_clock: bool = False) -> AsyncGenerator[Progress, None]:
        """Removes what began before before_ms, a whole hour, and yields its progress after each batch.

        confirm_clock: an operator confirms that the clock is right, which the log of queries records.

        Raises:
            ClockJumped: the clock shows a time that must be confirmed.
            AlreadyRunning: another prune is running.
            StoreClosed, DiskFull, StoreUnavailable: what was removed so far is gone, and the next prune continues.
        """
        ...

    async def reset_mark(self, before_ms: int, by: str) -> Progress:
        """Sets the mark that the ledger is pruned to back to before_ms, if it is later. Removed rows stay removed.

        The log of queries records it.

        Raises:
            AlreadyRunning: a prune is running.
            StoreClosed, DiskFull, StoreUnavailable: the mark is unchanged.
        """
        ...

    async def count_prunable(self, before_ms: int) -> Progress:
        """What a prune would remove now."""
        ...

    async def unfinished_prune(self) -> int | None:
        """The time of an unfinished prune, in milliseconds since 1970-01-01 UTC; None if there is none."""
        ...

    def erase(self, wanted: Erasure) -> AsyncGenerator[ErasingProgress, None]:
        """Erases the texts of rows, and yields its progress after each batch. All else of the rows stays.

        Raises:
            NotFound, AmbiguousId: there is no such row or session, or several callers have one.
            Held: a legal hold holds one of the rows. Nothing is erased, unless it was placed meanwhile.
            ClockJumped: the clock, by which rows are old enough, shows a time that must be confirmed.
            AlreadyRunning: another erasure is running.
            StoreClosed, DiskFull, StoreUnavailable: what was erased so far is, and asking again continues.
        """
        ...

    async def count_erasable(self, wanted: Erasure) -> ErasingProgress:
        """What erasing would erase now. Raises NotFound, AmbiguousId, Held."""
        ...

    async def act_on_hold(self, act: Act) -> administration_pb2.Hold:
        """Places or lifts a hold, which keeps rows from being pruned and erased.

        Raises:
            AlreadyExists: a hold of that name is in place.
            NotFound: none is.
            InvalidRequest: as many are in place as may be.
            StoreClosed, DiskFull, StoreUnavailable: nothing is changed.
        """
        ...

    async def list_holds(self, *, with_lifted: bool) -> list[administration_pb2.Hold]:
        """The holds in place, or the last that ever were, in the order in which they were placed."""
        ...

    async def back_up(self) -> tuple[BinaryIO, int]:
        """A checked copy of the current ledger, an open file at its start, and its number of producers' rows.

        The file has no name, and is deleted when it is closed.

        Raises:
            Unsupported: this store is backed up with its database's own tools.
            AlreadyRunning: another copy is being made.
            StoreRefused, DiskFull, StoreClosed: it cannot be made.
        """
        ...
