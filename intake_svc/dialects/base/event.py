"""One span or one log record, as dialects look at it: its attributes, its times, and what it is known by."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from intake_svc.dialects.base.table import Attributes, Names, Table, wanted

_NANOS = 1_000_000
_TRACE_BYTES = 16
# What a row may have: the years 2000 to 9999.
_EARLIEST_MS, _LATEST_MS = 946_684_800_000, 253_402_300_799_999
_MILLISECOND = timedelta(milliseconds=1)
_VARIANT = {digit: f"{int(digit, 16) & 0b0011 | 0b1000:x}" for digit in "0123456789abcdef"}
"""A digit of a digest as a UUID has it, whose first two bits there are 1 and 0."""
_ERROR = Status.STATUS_CODE_ERROR
_EXCEPTION = frozenset(("exception.type",))
_EXCEPTION_TYPE: Names = ("exception.type",)


@dataclass(slots=True)
class Event:
    """What a span or a log record says that a table names. Nobody changes it; frozen, it would cost 2 us to make."""

    attributes: Attributes
    began_ms: int
    """When it began, in milliseconds since 1970-01-01 UTC; 0 where that is not known or no row could have it."""
    duration_ms: int
    ended_ms: int
    trace_id: str
    """32 lower-case hexadecimal digits; empty where there is none."""
    source: bytes
    """What tells it from all others of its producer, the same each time that it is sent."""
    failed: bool = False
    """Whether the span's status is an error."""
    error_type: str = ""
    """The type of the exception that the span tells of."""
    says_end: bool = True
    """Whether it says that it ended and how: not with a status that we do not know, nor a span that has not ended."""
    is_cut: bool = False
    """Whether its program dropped attributes of it, since a span may have so many: maybe those by which it is known."""
    is_named: bool = False
    """Whether an id tells it from all others, so that what has the same one is the same."""

    def row_id(self, told: str) -> str:
        """The id of the row that is made of it: as a UUIDv7, of its time and a digest of what it is known by.

        told: what the row says, by which it is told from another that the same span or record would be.
        """
        digits, ms = sha256(self.source + told.encode("utf-8", "surrogatepass")).hexdigest(), self.began_ms
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{digits[1:4]}-{_VARIANT[digits[4]]}{digits[5:8]}-{digits[8:20]}"


def of_span(span: Span, table: Table) -> Event:
    """A span. Its name, its status message and its links are not read, and of its events the types of exceptions."""
    start, end, trace_id, span_id = span.start_time_unix_nano, span.end_time_unix_nano, span.trace_id, span.span_id
    began, ended, duration = start // _NANOS, end // _NANOS, (end - start) // _NANOS
    if not (start <= end and began >= _EARLIEST_MS and ended <= _LATEST_MS):
        began, ended, duration = _as_far_as_known(began, ended)
    status = span.status.code if span.HasField("status") else 0
    return Event(
        Attributes(span.attributes, *wanted(table)),
        began,
        duration,
        ended,
        _trace_id(trace_id),
        source_of(span),
        status == _ERROR,
        _exception(span) if span.events else "",
        end > 0 and 0 <= status <= _ERROR,
        span.dropped_attributes_count > 0,
        is_given(span_id),
    )


def source_of(span: Span, span_id: bytes | None = None) -> bytes:
    """The source of a span's event, or of that of another span of its trace."""
    return b"span" + span.trace_id + (span.span_id if span_id is None else span_id)


def of_log(record: LogRecord, table: Table) -> Event:
    """A log record, which is of what has ended. Its body is not read.

    OpenTelemetry had an event's name in an attribute, and has a field of the record for it since.
    """
    attributes = Attributes(record.attributes, *wanted(table))
    if record.event_name:
        attributes.add(table.kind, record.event_name)
    duration = attributes.number(table.duration_ms) or 0
    nanos = record.time_unix_nano or record.observed_time_unix_nano
    ended = _ms(attributes.text(table.time)) or nanos // _NANOS
    began = ended - duration
    if not (began >= _EARLIEST_MS and ended <= _LATEST_MS):
        began, ended, duration = _as_far_as_known(began, ended)
    return Event(
        attributes=attributes,
        began_ms=began,
        duration_ms=duration,
        ended_ms=ended,
        trace_id=_trace_id(record.trace_id),
        source=b"log" + nanos.to_bytes(8) + record.trace_id + record.span_id,
    )


def _as_far_as_known(began: int, ended: int) -> tuple[int, int, int]:
    """When something began and ended, and how long it took, all in milliseconds.

    Clocks are set back while a call runs, and some spans have only one time: one that a row could have stands for both.
    Without one all are 0.
    """
    known = [ms if _EARLIEST_MS <= ms <= _LATEST_MS else 0 for ms in (began, ended)]
    began, ended = known[0] or known[1], known[1] or known[0]
    return (began, ended, ended - began) if began <= ended else (began, began, 0)


def is_given(sent: bytes) -> bool:
    """Whether an id of a span is one: zeros stand for none."""
    return sent.strip(b"\0") != b""


def _exception(span: Span) -> str:
    for event in span.events:
        if event.name == "exception":
            return Attributes(event.attributes, _EXCEPTION).text(_EXCEPTION_TYPE)
    return ""


def _trace_id(sent: bytes) -> str:
    return _hexadecimal(sent) if len(sent) == _TRACE_BYTES else ""


@lru_cache(maxsize=256)
def _hexadecimal(trace_id: bytes) -> str:
    """Most spans share their trace with the ones before."""
    return trace_id.hex() if any(trace_id) else ""


def _ms(text: str) -> int:
    """A time as ISO 8601 in milliseconds since 1970-01-01 UTC; 0 where it is none."""
    if not 20 <= len(text) <= 40:
        return 0
    try:
        time = datetime.fromisoformat(text)
        moment = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (moment - datetime.fromtimestamp(0, UTC)) // _MILLISECOND
    except (ValueError, OverflowError):
        return 0
