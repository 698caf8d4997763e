"""Batches: checked requests, without the rows that can never be stored."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest, RowVersionTooNew
from audit_svc.ledger.clock import MAX_AHEAD_MS
from audit_svc.ledger.columns import Labels
from audit_svc.ledger.numbers import Numbers, read_numbers, read_session_numbers
from audit_svc.ledger.tables import (
    CALL_BEGAN,
    CONTROL_COLUMNS,
    COST_COLUMNS,
    REQUEST_BEGAN,
    SESSION_COLUMNS,
    SESSION_UPDATED,
    TOOL_CALL_COLUMNS,
)
from audit_svc.ledger.valid_rows import NO_ROWS, READ_ROWS, ValidRows, accept
from recording.row_version import ROW_VERSION

if TYPE_CHECKING:
    from onrecord.audit.v1 import administration_pb2  # most commands that read the ledger need none of it

MAX_ROWS = 10_000
_SIZES_MAY_BE_UNKNOWN = 4
"""The first version of rows in which a result_bytes that is unset is not 0."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A checked RecordRequest, as values of the tables."""

    numbers: Numbers | None
    """None for a producer that keeps no sequence."""
    tool_calls: ValidRows
    model_requests: ValidRows
    sessions: ValidRows
    """The last value of each is the dictionary of its labels."""
    rejections: Sequence[audit_pb2.Rejection]
    """Rows that can never be stored."""
    recorded_by: str = ""
    """The name of the caller; empty where callers have no names."""
    queries: Sequence["administration_pb2.QueryRow"] = ()
    """Rows of the log of queries, which no producer sends."""
    received_ms: int = 0
    """When it arrived, by the ledger's clock."""
    of_stream: bool = False
    """Whether it came in a stream, and not alone."""
    size_bytes: int = 0
    """Of the request."""
    controls: ValidRows = NO_ROWS
    session_numbers: Sequence[Numbers] = ()
    """What agents number themselves, each stream as a producer of its own: see stream_id()."""
    is_ahead: bool = False
    """Whether a row began after the batch arrived, by more than clocks usually differ."""
    is_last: bool = True
    """Whether its numbers have come, all of them, with its rows: not those of a part that others follow."""

    def __len__(self) -> int:
        """The number of rows to store."""
        return len(self.tool_calls) + len(self.model_requests) + len(self.sessions) + len(self.controls)

    def in_parts(self, most_rows: int) -> "list[Batch]":
        """Batches with its rows, in their order, of at most so many each. The last has what is not of a row alone."""
        if len(self) <= most_rows:
            return [self]
        *first, last = (self._part(begin, most_rows) for begin in range(0, len(self), most_rows))
        return [
            *(replace(part, rejections=(), session_numbers=(), size_bytes=0, is_last=False) for part in first),
            last,
        ]

    def _part(self, first: int, most_rows: int) -> "Batch":
        def part_of(rows: ValidRows) -> ValidRows:
            nonlocal first
            part = rows.part(max(first, 0), max(first + most_rows, 0))
            first -= len(rows)
            return part

        return replace(
            self,
            sessions=part_of(self.sessions),
            tool_calls=part_of(self.tool_calls),
            model_requests=part_of(self.model_requests),
            controls=part_of(self.controls),
        )


def count_rows(request: audit_pb2.RecordRequest) -> int:
    """Of all kinds."""
    return len(request.tool_calls) + len(request.model_requests) + len(request.sessions) + len(request.controls)


def read_batch(request: audit_pb2.RecordRequest, now_ms: int, recorded_by: str = "") -> Batch:
    """batch_in_steps(), all at once."""
    return at_once(batch_in_steps(request, now_ms, recorded_by))


def at_once(steps: Generator[None, None, Batch]) -> Batch:
    """What steps return at their end."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            batch: Batch = done.value
            return batch


def batch_in_steps(
    request: audit_pb2.RecordRequest,
    now_ms: int,
    recorded_by: str = "",
    *,
    size_bytes: int = 0,
    of_stream: bool = False,
) -> Generator[None, None, Batch]:
    """Checks a request of the caller recorded_by, row by row, against the limits of the proto.

    10,000 rows take 40 ms or more, so others have their turn between the steps.

    now_ms: when it arrived, by the ledger's clock, which marks rows but refuses none. size_bytes: of the request, where
    the caller knows it.

    Raises:
        InvalidRequest: the request as a whole can never be stored.
        RowVersionTooNew: it may have what this ledger would lose.
    """
    _check_version(request.row_version)
    size = count_rows(request) + len(request.session_numbers)
    if size > MAX_ROWS:
        raise InvalidRequest(f"the batch has {size} rows: send at most {MAX_ROWS} at once", "tool_calls")
    if request.row_version < _SIZES_MAY_BE_UNKNOWN:
        for number, row in enumerate(request.tool_calls):
            if number % READ_ROWS == 0:
                yield
            row.result_bytes = row.result_bytes  # 0 was told by leaving it out
    numbers = read_numbers(request.range) if request.HasField("range") else None
    rejections: list[audit_pb2.Rejection] = []
    tool_calls = yield from accept(audit_pb2.ROW_KIND_TOOL_CALL, TOOL_CALL_COLUMNS, request.tool_calls, rejections)
    costs = yield from accept(audit_pb2.ROW_KIND_MODEL_REQUEST, COST_COLUMNS, request.model_requests, rejections)
    labelled = (*SESSION_COLUMNS, Labels("labels"))
    sessions = yield from accept(audit_pb2.ROW_KIND_SESSION, labelled, request.sessions, rejections)
    controls = yield from accept(audit_pb2.ROW_KIND_CONTROL, CONTROL_COLUMNS, request.controls, rejections)
    latest = max(
        (
            max(rows.values[place :: rows.width], default=0)
            for rows, place in ((tool_calls, CALL_BEGAN), (costs, REQUEST_BEGAN), (sessions, SESSION_UPDATED))
        ),
        default=0,
    )
    return Batch(
        numbers,
        tool_calls,
        costs,
        sessions,
        rejections,
        recorded_by,
        received_ms=now_ms,
        of_stream=of_stream,
        controls=controls,
        session_numbers=tuple(map(read_session_numbers, request.session_numbers)),
        size_bytes=size_bytes or request.ByteSize(),
        is_ahead=latest > now_ms + MAX_AHEAD_MS,
    )


def query_batch(queries: Sequence["administration_pb2.QueryRow"]) -> Batch:
    """A batch of rows of the log of queries alone."""
    return Batch(None, NO_ROWS, NO_ROWS, NO_ROWS, (), queries=queries)


def in_order(rejections: Iterable[audit_pb2.Rejection]) -> list[audit_pb2.Rejection]:
    """Rejections in the order of the request."""
    return sorted(rejections, key=lambda rejection: (rejection.kind, rejection.index))


def _check_version(version: int) -> None:
    if version < 1:
        raise InvalidRequest(
            f"row_version is {version or 'not set'}: set it to the version of the rows that the producer was built "
            f"with, as protos/README.md lists them; this ledger takes 1 to {ROW_VERSION}",
            "row_version",
        )
    if version > ROW_VERSION:
        raise RowVersionTooNew(
            f"the batch has rows of row_version {version}, and this ledger knows {ROW_VERSION}: upgrade the ledger "
            "first, and keep the rows until then",
            ROW_VERSION,
        )
