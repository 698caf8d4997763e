"""Pages: bounded in rows and bytes, with the key that the next page begins after."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from onrecord.audit.v1 import questions_pb2

from service_kit.paging import MAX_PAGE_BYTES, Position

if TYPE_CHECKING:
    from onrecord.audit.v1 import administration_pb2

Row = TypeVar("Row", bound=Any)
Raw = TypeVar("Raw")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows in the order of their listing."""

    rows: list[Row]
    next: Position | None = None
    """The key after which the next page begins; None if there is none."""


def take_page(found: Iterable[Raw], read: Callable[[Raw], Row], size: int, key: Callable[[Row], Position]) -> Page[Row]:
    """The first page of found, which needs one row more than size to show whether another page follows."""
    rows: list[Row] = []
    size_bytes = 0
    for values in found:
        if len(rows) == size or size_bytes > MAX_PAGE_BYTES:
            return Page(rows, key(rows[-1]))
        rows.append(read(values))
        size_bytes += rows[-1].ByteSize()
    return Page(rows)


def query_key(row: "administration_pb2.QueryRow") -> Position:
    """The key of a query: (created_at_ms, id)."""
    return row.created_at_ms, row.id


def call_key(record: questions_pb2.ToolCallRecord) -> Position:
    """The key of a tool call: (created_at_ms, position)."""
    return record.tool_call.created_at_ms, record.receipt.position


def request_key(record: questions_pb2.ModelRequestRecord) -> Position:
    """The key of a model request: (created_at_ms, position)."""
    return record.model_request.created_at_ms, record.receipt.position


def session_key(record: questions_pb2.SessionRecord) -> Position:
    """The key of a session: (created_at_ms, position)."""
    return record.session.created_at_ms, record.receipt.position


def producer_key(row: questions_pb2.Producer) -> Position:
    """The key of a producer: (id, recorded_by)."""
    return row.id, row.recorded_by


def control_key(record: questions_pb2.ControlRecord) -> Position:
    """The key of an act of control: (at_ms, position)."""
    return record.control.at_ms, record.receipt.position


def entry_key(entry: questions_pb2.Entry) -> Position:
    """The key of an entry of a timeline: (at_ms, 0 for a tool call and 1 for a model request, position)."""
    is_request = entry.HasField("model_request")
    record = entry.model_request if is_request else entry.tool_call
    return entry.at_ms, int(is_request), record.receipt.position
