"""The tables' columns, and batches: checked requests, without the rows that can never be stored."""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import InvalidRequest, RowVersionTooNew
from audit_svc.ledger.clock import MAX_AHEAD_MS
from audit_svc.ledger.columns import (
    UNKNOWN,
    Choice,
    Column,
    Digest,
    Flag,
    Labels,
    Number,
    Problem,
    Text,
    Time,
    enum_names,
)
from recording.controls import has_control
from recording.row_version import ROW_VERSION

if TYPE_CHECKING:
    from onrecord.audit.v1 import administration_pb2  # most commands that read the ledger need none of it

MAX_ROWS = 10_000
_SIZES_MAY_BE_UNKNOWN = 4
"""The first version of rows in which a result_bytes that is unset is not 0."""

READ_ROWS = 50
"""Rows decoded in one call into C, which holds the GIL until it returns: the writer needs it between statements."""

Values = Sequence[Any]

_Run = tuple[str, list[Column]]
"""Columns that are in one message of a row: its path, empty for the row, and they."""

SOURCES = enum_names("SOURCE_", common_pb2.Source.items())
VERDICTS = enum_names("VERDICT_", common_pb2.Verdict.items())
DECISION_SOURCES = enum_names("DECISION_SOURCE_", common_pb2.DecisionSource.items())
CONTROL_KINDS = enum_names("CONTROL_KIND_", audit_pb2.ControlKind.items())


def _unset(name: str, limit: int, field: str = "") -> Text:
    """A name that is null in the table where it is empty."""
    return Text(name, field, limit=limit, zero_is_null=True)


WHO_COLUMNS: tuple[Column, ...] = (
    _unset("principal", 128),
    _unset("on_behalf_of", 128),
    Choice("source", names=SOURCES, required=False, zero_is_null=True),
    _unset("parent_turn_id", 128),
    _unset("agent", 64, "agent.name"),
    _unset("agent_version", 64, "agent.version"),
)
"""Of tool calls and model requests. Null in the table where they are not set, as in rows of before."""

TOOL_CALL_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Text("session_id", limit=128, default=UNKNOWN),
    Text("engine", limit=64, default=UNKNOWN),
    Text("tool_name", limit=128, required=True),
    Text("args_summary", limit=4096, in_bytes=True, is_name=False),
    Number("duration_ms"),
    Number("exit_code", optional=True, minimum=-(2**31)),
    Number("http_status", zero_is_null=True),
    Text("error", limit=2048, in_bytes=True, is_name=False, zero_is_null=True),
    Flag("result_truncated"),
    Number("result_bytes", optional=True),
    Time("created_at", field="created_at_ms"),
    Choice("outcome", names=enum_names("OUTCOME_", common_pb2.Outcome.items())),
    Text("model", limit=256),
    Text("provider_call_id", limit=256),
    Text("turn_id", limit=128),
    Number("redaction_version"),
    Flag("times_observed"),
    Flag("shadow"),
    Text("trace_id", limit=32),
    *WHO_COLUMNS,
    _unset("mcp_server", 64, "mcp_server.name"),
    _unset("mcp_server_version", 64, "mcp_server.version"),
    _unset("args_digest_key", 64, "args_digest.key_id"),
    Digest("args_digest", "args_digest.hmac_sha256", zero_is_null=True),
    Choice("verdict", "decision.verdict", names=VERDICTS, required=False, zero_is_null=True),
    Choice("decision_source", "decision.source", names=DECISION_SOURCES, required=False, zero_is_null=True),
    _unset("decided_by", 128, "decision.decided_by"),
    Number("decided_at", "decision.decided_at_ms", zero_is_null=True),
    Number("waited_ms", "decision.waited_ms", zero_is_null=True),
    _unset("rule", 128, "decision.rule"),
    _unset("policy_digest", 128, "decision.policy_digest"),
    Text("reason", "decision.reason", limit=256, in_bytes=True, is_name=False, zero_is_null=True),
    Flag("unconfined", zero_is_null=True),
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
    Text("error", limit=2048, in_bytes=True, is_name=False, zero_is_null=True),
    Time("created_at", field="created_at_ms"),
    Flag("usage_incomplete"),
    Flag("context_exceeded"),
    Flag("shadow"),
    Text("trace_id", limit=32),
    Flag("cost_reported", zero_is_null=True),
    *WHO_COLUMNS,
)

CONTROL_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Choice("kind", names=CONTROL_KINDS),
    _unset("principal", 128),
    Text("scope", limit=1024),
    _unset("policy_digest", 128),
    Text("reason", limit=256, in_bytes=True, is_name=False, zero_is_null=True),
    Time("created_at", field="at_ms"),
    _unset("stop_id", 128),
)

SESSION_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Number("revision"),
    Text("engine", limit=64),
    Text("model", limit=256),
    Choice(
        "status",
        names=enum_names("SESSION_STATUS_", common_pb2.SessionStatus.items()),
        required=False,
        required_with="revision",
    ),
    Number("turns"),
    Number("tool_calls"),
    Number("requests", field="usage.requests"),
    Number("input_tokens", field="usage.input_tokens"),
    Number("output_tokens", field="usage.output_tokens"),
    Number("cached_input_tokens", field="usage.cached_input_tokens"),
    Number("reasoning_tokens", field="usage.reasoning_tokens"),
    Number("known_cost_micros", field="usage.known_cost_micros"),
    Number("unpriced_requests", field="usage.unpriced_requests"),
    Time("created_at", field="created_at_ms"),
    Time("updated_at", field="updated_at_ms"),
)


def _place(columns: Sequence[Column], name: str) -> int:
    return [column.name for column in columns].index(name)


CALL_BEGAN = _place(TOOL_CALL_COLUMNS, "created_at")
REQUEST_BEGAN = _place(COST_COLUMNS, "created_at")
SESSION_UPDATED = _place(SESSION_COLUMNS, "updated_at")


class Numbers(NamedTuple):
    """The records of a producer that a batch covers."""

    producer_id: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ValidRows:
    """Rows of one kind that passed all checks, as values of their tables."""

    values: list[Any]
    """All rows' values, concatenated: the bindings of an INSERT of many rows, without a tuple for each."""
    columns: Sequence[Column]
    """Of a row: those of its table, without those of messages that no row sets, which are null in the table.

    These come last, so that the others have the same places in all batches.
    """
    positions: Sequence[int]
    """Where in its list of the request each row was."""
    kind: audit_pb2.RowKind.ValueType = audit_pb2.ROW_KIND_UNSPECIFIED
    """Which list that is."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.positions)

    @property
    def width(self) -> int:
        """The number of values in a row."""
        return len(self.columns)

    def rejection(self, position: int, row_id: str, problem: Problem) -> audit_pb2.Rejection:
        """A Rejection of the row at position. Its id is no longer than an id may be."""
        return audit_pb2.Rejection(
            kind=self.kind,
            index=position,
            id=row_id[:128],
            code=problem.code,
            field=problem.field,
            message=problem.message,
        )

    def span(self, first: int, last: int) -> list[Any]:
        """The values of the rows from first to before last."""
        return self.values[first * self.width : last * self.width]

    def only(self, wanted: Callable[[Values], bool]) -> "ValidRows":
        """The rows for which wanted is true."""
        kept = [(position, row) for position, row in zip(self.positions, self.rows(), strict=True) if wanted(row)]
        values = list(chain.from_iterable(row for _, row in kept))
        return replace(self, values=values, positions=[position for position, _ in kept])

    def rows(self) -> Iterator[Values]:
        """The rows one by one."""
        for index in range(len(self)):
            yield tuple(self.span(index, index + 1))

    def with_all(self, columns: Sequence[Column]) -> "ValidRows":
        """The same rows with all columns of their table, null where they do not have them."""
        if len(columns) == self.width:
            return self
        values: list[Any] = [None] * (len(self) * len(columns))
        for place, column in enumerate(columns):
            if column in self.columns:
                values[place :: len(columns)] = self.values[self.columns.index(column) :: self.width]
        return replace(self, values=values, columns=columns)


NO_ROWS = ValidRows([], (), ())


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

    def __len__(self) -> int:
        """The number of rows to store."""
        return len(self.tool_calls) + len(self.model_requests) + len(self.sessions) + len(self.controls)


def read_batch(
    request: audit_pb2.RecordRequest,
    now_ms: int,
    recorded_by: str = "",
    *,
    size_bytes: int = 0,
    of_stream: bool = False,
) -> Batch:
    """Checks a request of the caller recorded_by, row by row, against the limits of the proto.

    now_ms: when it arrived, by the ledger's clock, which marks rows but refuses none. size_bytes: of the request, where
    the caller knows it.

    Raises:
        InvalidRequest: the request as a whole can never be stored.
        RowVersionTooNew: it may have what this ledger would lose.
    """
    _check_version(request.row_version)
    size = len(request.tool_calls) + len(request.model_requests) + len(request.sessions) + len(request.controls)
    size += len(request.session_numbers)
    if size > MAX_ROWS:
        raise InvalidRequest(f"the batch has {size} rows: send at most {MAX_ROWS} at once", "tool_calls")
    if request.row_version < _SIZES_MAY_BE_UNKNOWN:
        for row in request.tool_calls:
            row.result_bytes = row.result_bytes  # 0 was told by leaving it out
    numbers = _numbers(request.range) if request.HasField("range") else None
    rejections: list[audit_pb2.Rejection] = []
    tool_calls = _accept(audit_pb2.ROW_KIND_TOOL_CALL, TOOL_CALL_COLUMNS, request.tool_calls, rejections)
    costs = _accept(audit_pb2.ROW_KIND_MODEL_REQUEST, COST_COLUMNS, request.model_requests, rejections)
    labelled = (*SESSION_COLUMNS, Labels("labels"))
    sessions = _accept(audit_pb2.ROW_KIND_SESSION, labelled, request.sessions, rejections)
    controls = _accept(audit_pb2.ROW_KIND_CONTROL, CONTROL_COLUMNS, request.controls, rejections)
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
        session_numbers=tuple(map(_session_numbers, request.session_numbers)),
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


def _numbers(covered: audit_pb2.SequenceRange) -> Numbers:
    if not 1 <= len(covered.producer_id) <= 128:
        raise InvalidRequest("range.producer_id does not have 1 to 128 characters", "range.producer_id")
    if has_control(covered.producer_id):
        raise InvalidRequest("range.producer_id has a control character", "range.producer_id")
    if covered.first < 1:
        raise InvalidRequest("range.first is below 1, where numbers begin", "range.first")
    if covered.last < covered.first:
        raise InvalidRequest("range.last is below range.first", "range.last")
    return Numbers(covered.producer_id, covered.first, covered.last)


_STREAM = "session/"


def stream_id(session_id: str, stream: str) -> str:
    """By what the ledger knows a stream of a session's own numbers among its producers."""
    return f"{_STREAM}{session_id}/{stream}"


def stream_of(producer_id: str) -> tuple[str, str] | None:
    """The session and the stream that stream_id() made an id of; None of any other producer's."""
    session_id, slash, stream = producer_id.removeprefix(_STREAM).rpartition("/")
    return (session_id, stream) if producer_id.startswith(_STREAM) and slash else None


def _session_numbers(numbers: audit_pb2.SessionNumbers) -> Numbers:
    for name, limit in (("session_id", 128), ("stream", 64)):
        text = getattr(numbers, name)
        if not 1 <= len(text) <= limit or has_control(text):
            raise InvalidRequest(
                f"session_numbers.{name} does not have 1 to {limit} characters without control characters",
                f"session_numbers.{name}",
            )
    if "/" in numbers.stream:
        raise InvalidRequest("session_numbers.stream has a slash", "session_numbers.stream")
    if not 0 <= numbers.first <= numbers.last:
        raise InvalidRequest("session_numbers.first is below 0 or above last", "session_numbers.first")
    return Numbers(stream_id(numbers.session_id, numbers.stream), numbers.first, numbers.last)


def _accept(
    kind: audit_pb2.RowKind.ValueType,
    columns: tuple[Column, ...],
    rows: Sequence[Message],
    rejections: list[audit_pb2.Rejection],
) -> ValidRows:
    if not rows:
        return ValidRows([], columns, (), kind)
    messages = list(rows)
    runs = [run for run in _runs(columns) if _is_needed(run, messages)]
    set_columns = [column for _, run in runs for column in run]
    width = len(set_columns)
    readers = [(path, _reads([column.wire_name.rpartition(".")[2] for column in run])) for path, run in runs]
    values: list[Any] = []
    for first in range(0, len(messages), READ_ROWS):
        part = messages[first : first + READ_ROWS]
        # All of C's own making: a row costs no step of Python.
        fields = [map(read, map(operator.attrgetter(path), part) if path else part) for path, read in readers]
        values.extend(chain.from_iterable(chain.from_iterable(zip(*fields, strict=True))))
    are_good = True
    for index, column in enumerate(set_columns):
        found = values[index::width]
        if column.zero_is_null and not any(found):  # most of what may be unset is unset in a whole batch
            values[index::width] = [None] * len(found)
            continue
        stored = column.store(found, messages)
        if stored is not found:
            values[index::width] = stored
        are_good = are_good and column.holds(stored)
    accepted = ValidRows(values, set_columns, range(len(messages)), kind)
    return accepted if are_good else _accept_singly(accepted, rejections)


def _runs(columns: Sequence[Column]) -> list[_Run]:
    """The columns in their order, those of one message in a row together.

    An object is made of a message in a field each time that it is read: so once for all of its columns.
    """
    by_path = groupby(columns, key=lambda column: column.wire_name.rpartition(".")[0])
    return [(path, list(run)) for path, run in by_path]


def _is_needed(run: _Run, messages: Sequence[Message]) -> bool:
    """False for the columns of a message that no row sets, which are then null in all rows."""
    path, columns = run
    if not path or not all(column.zero_is_null for column in columns):
        return True
    return any(map(type(messages[0]).HasField, messages, repeat(path)))


def _reads(names: Sequence[str]) -> Callable[[Message], tuple[Any, ...]]:
    """attrgetter(), which gives no tuple for a single name."""
    read = operator.attrgetter(*names)
    return read if len(names) > 1 else lambda message: (read(message),)


def _accept_singly(rows: ValidRows, rejections: list[audit_pb2.Rejection]) -> ValidRows:
    kept: list[Any] = []
    positions: list[int] = []
    for position, row in zip(rows.positions, rows.rows(), strict=True):
        checks = (column.problem(value) for column, value in zip(rows.columns, row, strict=True))
        problem = next((found for found in checks if found is not None), None)
        if problem is None:
            kept.extend(row)
            positions.append(position)
        else:
            rejections.append(rows.rejection(position, row[0], problem))
    return replace(rows, values=kept, positions=positions)
