"""The tables' columns, and batches: checked requests, without the rows that can never be stored."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.clock import MAX_AHEAD_MS
from audit_svc.ledger.columns import MAX_INT64, UNKNOWN, Choice, Column, Flag, Labels, Number, Text, Time, enum_names

MAX_ROWS = 10_000

READ_ROWS = 50
"""Rows decoded in one call into C, which holds the GIL until it returns: the writer needs it between statements."""

Values = Sequence[Any]

TOOL_CALL_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Text("session_id", limit=128, default=UNKNOWN),
    Text("engine", limit=64, default=UNKNOWN),
    Text("tool_name", limit=128, required=True),
    Text("args_summary", limit=4096, in_bytes=True),
    Number("duration_ms"),
    Number("exit_code", optional=True, minimum=-(2**31)),
    Number("http_status", zero_is_null=True),
    Text("error", limit=2048, in_bytes=True, zero_is_null=True),
    Flag("result_truncated"),
    Number("result_bytes"),
    Time("created_at", field="created_at_ms"),
    Choice("outcome", names=enum_names("OUTCOME_", audit_pb2.Outcome.items())),
    Text("model", limit=256),
    Text("tool_call_id", limit=256),
    Text("turn_id", limit=128),
    Number("redaction_version"),
    Flag("times_observed"),
    Flag("shadow"),
    Text("trace_id", limit=32),
)

COST_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Text("session_id", limit=128, default=UNKNOWN),
    Text("turn_id", limit=128),
    Text("engine", limit=64, default=UNKNOWN),
    Text("model", limit=256),
    Text("requested_model", limit=256),
    Number("input_tokens"),
    Number("output_tokens"),
    Number("cached_input_tokens"),
    Number("reasoning_tokens"),
    Number("cost_micros", optional=True),
    Number("duration_ms"),
    Text("error", limit=2048, in_bytes=True, zero_is_null=True),
    Time("created_at", field="created_at_ms"),
    Flag("usage_incomplete"),
    Flag("context_exceeded"),
    Flag("shadow"),
    Text("trace_id", limit=32),
)

SESSION_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Number("revision", minimum=1),
    Text("engine", limit=64),
    Text("model", limit=256),
    Choice("status", names=enum_names("SESSION_STATUS_", audit_pb2.SessionStatus.items())),
    Number("turns"),
    Number("steps"),
    Number("tool_calls"),
    Number("input_tokens"),
    Number("output_tokens"),
    Number("cost_micros"),
    Number("unpriced_steps"),
    Time("created_at", field="created_at_ms"),
    Time("updated_at", field="updated_at_ms"),
)


def _place(columns: Sequence[Column], name: str) -> int:
    return [column.name for column in columns].index(name)


CALL_BEGAN = _place(TOOL_CALL_COLUMNS, "created_at")
REQUEST_BEGAN = _place(COST_COLUMNS, "created_at")
SESSION_UPDATED = _place(SESSION_COLUMNS, "updated_at")


@dataclass(frozen=True, slots=True)
class ValidRows:
    """Rows of one kind that passed all checks, as values of their tables."""

    values: list[Any]
    """All rows' values, concatenated: the bindings of an INSERT of many rows, without a tuple for each."""
    width: int
    """The number of values in a row."""
    positions: Sequence[int]
    """Each row's position in the request, counted over all kinds."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.positions)

    def span(self, first: int, last: int) -> list[Any]:
        """The values of the rows from first to before last."""
        return self.values[first * self.width : last * self.width]

    def rows(self) -> Iterator[Values]:
        """The rows one by one."""
        for index in range(len(self)):
            yield tuple(self.span(index, index + 1))


@dataclass(frozen=True, slots=True)
class Batch:
    """A checked RecordRequest, as values of the tables."""

    producer_id: str
    """Empty for a producer without record numbers."""
    first_sequence: int
    sequence: int
    tool_calls: ValidRows
    costs: ValidRows
    sessions: ValidRows
    """The last value of each row is the dictionary of its labels."""
    rejections: Sequence[tuple[int, audit_pb2.Rejection]]
    """Rows that can never be stored, by position."""
    recorded_by: str = ""
    """The caller's name; empty if callers have no names."""
    queries: Sequence[audit_pb2.QueryRow] = ()
    """Rows of the log of queries, which no producer sends."""
    received_ms: int = 0
    """When it arrived, by the ledger's clock."""
    is_ahead: bool = False
    """Whether a row began after the batch arrived, by more than clocks usually differ."""

    def __len__(self) -> int:
        """The number of rows to store."""
        return len(self.tool_calls) + len(self.costs) + len(self.sessions)


def read_batch(request: audit_pb2.RecordRequest, now_ms: int, recorded_by: str = "") -> Batch:
    """Checks a request of the caller recorded_by, row by row, against the limits of the proto.

    now_ms: when it arrived, by the ledger's clock, which marks rows but refuses none.

    Raises:
        InvalidRequest: the request as a whole can never be stored.
    """
    size = len(request.rows) + len(request.costs) + len(request.sessions)
    if size > MAX_ROWS:
        raise InvalidRequest(f"the batch has {size} rows: send at most {MAX_ROWS} at once", "rows")
    if len(request.producer_id) > 128:
        raise InvalidRequest("producer_id is longer than 128 characters", "producer_id")
    if request.sequence > MAX_INT64 or request.first_sequence > request.sequence:
        raise InvalidRequest(f"first_sequence to sequence is no range within 0 to {MAX_INT64}", "sequence")
    rejections: list[tuple[int, audit_pb2.Rejection]] = []
    tool_calls = _accept(TOOL_CALL_COLUMNS, request.rows, 0, rejections)
    costs = _accept(COST_COLUMNS, request.costs, len(request.rows), rejections)
    labelled = (*SESSION_COLUMNS, Labels("labels"))
    sessions = _accept(labelled, request.sessions, len(request.rows) + len(request.costs), rejections)
    first = request.first_sequence or request.sequence
    latest = max(
        (
            max(rows.values[place :: rows.width], default=0)
            for rows, place in ((tool_calls, CALL_BEGAN), (costs, REQUEST_BEGAN), (sessions, SESSION_UPDATED))
        ),
        default=0,
    )
    return Batch(
        request.producer_id,
        first,
        request.sequence,
        tool_calls,
        costs,
        sessions,
        rejections,
        recorded_by,
        received_ms=now_ms,
        is_ahead=latest > now_ms + MAX_AHEAD_MS,
    )


def query_batch(queries: Sequence[audit_pb2.QueryRow]) -> Batch:
    """A batch of rows of the log of queries alone."""
    none = ValidRows([], 0, ())
    return Batch("", 0, 0, none, none, none, (), queries=queries)


def rejection(row_id: str, code: audit_pb2.RejectionCode.ValueType, message: str) -> audit_pb2.Rejection:
    """A Rejection, with its id cut to the length of an id."""
    return audit_pb2.Rejection(id=row_id[:128], code=code, message=message)


def tool_call_row(values: Values) -> audit_pb2.AuditRow:
    """The message for values of TOOL_CALL_COLUMNS."""
    return audit_pb2.AuditRow(**_TOOL_CALL_WIRE.fields(values))


def cost_row(values: Values) -> audit_pb2.CostRow:
    """The message for values of COST_COLUMNS."""
    return audit_pb2.CostRow(**_COST_WIRE.fields(values))


def session_row(values: Values, labels: dict[str, str]) -> audit_pb2.SessionRow:
    """The message for values of SESSION_COLUMNS."""
    return audit_pb2.SessionRow(labels=labels, **_SESSION_WIRE.fields(values))


class _Wire:
    """Converts rows of a table to messages. Nearly all columns are the same in both."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = tuple(column.wire_name for column in columns)
        self._others = [(column.wire_name, load) for column in columns if (load := column.loader()) is not None]

    def fields(self, values: Values) -> dict[str, Any]:
        fields = dict(zip(self._names, values, strict=True))
        for name, load in self._others:
            fields[name] = load(fields[name])
        return fields


_TOOL_CALL_WIRE, _COST_WIRE, _SESSION_WIRE = map(_Wire, (TOOL_CALL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS))


def _accept(
    columns: Sequence[Column],
    rows: Sequence[Message],
    offset: int,
    rejections: list[tuple[int, audit_pb2.Rejection]],
) -> ValidRows:
    width = len(columns)
    if not rows:
        return ValidRows([], width, ())
    messages = list(rows)
    read = operator.attrgetter(*(column.wire_name for column in columns))
    values: list[Any] = []
    for first in range(0, len(messages), READ_ROWS):
        values.extend(chain.from_iterable(map(read, messages[first : first + READ_ROWS])))
    are_good = True
    for index, column in enumerate(columns):
        found = values[index::width]
        stored = column.store(found, messages)
        if stored is not found:
            values[index::width] = stored
        are_good = are_good and column.holds(stored)
    accepted = ValidRows(values, width, range(offset, offset + len(messages)))
    return accepted if are_good else _accept_singly(columns, accepted, rejections)


def _accept_singly(
    columns: Sequence[Column],
    rows: ValidRows,
    rejections: list[tuple[int, audit_pb2.Rejection]],
) -> ValidRows:
    kept: list[Any] = []
    positions: list[int] = []
    for position, row in zip(rows.positions, rows.rows(), strict=True):
        checks = (column.problem(value) for column, value in zip(columns, row, strict=True))
        problem = next((found for found in checks if found is not None), None)
        if problem is None:
            kept.extend(row)
            positions.append(position)
        else:
            rejections.append((position, rejection(row[0], problem.code, problem.message)))
    return ValidRows(kept, len(columns), positions)
