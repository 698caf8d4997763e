"""Pages: bounded in rows and bytes, with the key that the next page begins after."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from onrecord.audit.v1 import questions_pb2

from service_kit.paging import Position

MAX_PAGE_BYTES = 3 * 2**20
"""A page ends early beyond this size: by default, gRPC clients accept messages of 4 MiB."""

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


def by_time(row: Any) -> Position:
    """The key of most listings: (created_at_ms, id)."""
    return row.created_at_ms, row.id


def call_key(record: questions_pb2.ToolCallRecord) -> Position:
    """by_time() of a tool call."""
    return by_time(record.tool_call)


def session_key(record: questions_pb2.SessionRecord) -> Position:
    """by_time() of a session."""
    return by_time(record.session)


def entry_key(entry: questions_pb2.Entry) -> Position:
    """by_time() of an entry of a timeline."""
    is_request = entry.HasField("model_request")
    return entry.at_ms, entry.model_request.model_request.id if is_request else entry.tool_call.tool_call.id


def in_parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Splits rows into chunks that each fit into a message."""
    part: list[Row] = []
    size_bytes = 0
    for row in rows:
        size_bytes += row.ByteSize()
        if part and size_bytes > MAX_PAGE_BYTES:
            yield part
            part, size_bytes = [], row.ByteSize()
        part.append(row)
    if part:
        yield part
