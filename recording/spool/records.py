"""What the spool's records hold; recording.framing is their format.

Numbers grow by one over the life of the spool's folder. A payload is the piece of a RecordRequest that holds the row,
with tag and length, so that concatenated payloads are a RecordRequest, and sending encodes nothing again. A record's
version is the row version of the program that wrote the row: it goes with the row to the ledger, whichever version of
the program sends it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from onrecord.audit.v1 import audit_pb2

from recording.framing import HEADER, Form
from recording.logger import Row

ROW = 1
"""The payload is a row to send."""
INTENT = 2
"""The payload is the row of a tool call that is about to run; it is not sent."""

MAX_PAYLOAD_BYTES = 256 * 2**10
FORM = Form({ROW, INTENT}, MAX_PAYLOAD_BYTES)

_WRITE_BYTES = 128 * 2**10

_TAGS: dict[type, bytes] = {
    audit_pb2.AuditRow: bytes([audit_pb2.RecordRequest.TOOL_CALLS_FIELD_NUMBER << 3 | 2]),
    audit_pb2.CostRow: bytes([audit_pb2.RecordRequest.MODEL_REQUESTS_FIELD_NUMBER << 3 | 2]),
    audit_pb2.SessionRow: bytes([audit_pb2.RecordRequest.SESSIONS_FIELD_NUMBER << 3 | 2]),
    audit_pb2.ControlRow: bytes([audit_pb2.RecordRequest.CONTROLS_FIELD_NUMBER << 3 | 2]),
    audit_pb2.SessionNumbers: bytes([audit_pb2.RecordRequest.SESSION_NUMBERS_FIELD_NUMBER << 3 | 2]),
}
_TOOL_CALL_TAG = _TAGS[audit_pb2.AuditRow]
_KIND_OF_FIELD = audit_pb2.RecordRequest.TOOL_CALLS_FIELD_NUMBER - audit_pb2.ROW_KIND_TOOL_CALL
"""RowKind numbers the lists of a RecordRequest in the order of their fields, those of later versions too."""


class UnknownRow(Exception):
    """A payload has no row, or one of a kind that only a newer version of this program knows."""


class Versioned(NamedTuple):
    """An encoded row, and the version that it was written with."""

    row_version: int
    payload: bytes


def encode_row(row: Row | audit_pb2.SessionNumbers) -> bytes:
    """The payload of row, or of numbers that go with rows."""
    body = row.SerializeToString()
    return _TAGS[type(row)] + encode_varint(len(body)) + body


def decode_row(payload: bytes) -> Row:
    """Decodes the row of a payload.

    Raises:
        google.protobuf.message.DecodeError: it is not a row.
        UnknownRow: it has numbers, or a row of a kind that a newer version added.
    """
    request = audit_pb2.RecordRequest.FromString(payload)
    rows: list[Row] = [*request.tool_calls, *request.model_requests, *request.sessions, *request.controls]
    if not rows:
        raise UnknownRow("no row, or one that a newer version of this program wrote: use that one")
    return rows[0]


def kind_of_row(payload: bytes) -> int:
    """Which list of a RecordRequest the row of a payload is in: an audit_pb2.RowKind, or one of a newer version."""
    return (payload[0] >> 3) - _KIND_OF_FIELD


def is_tool_call(payload: bytes) -> bool:
    """Whether a payload holds an AuditRow."""
    return payload.startswith(_TOOL_CALL_TAG)


def encode_varint(value: int) -> bytes:
    """Protobuf's encoding of a number that is 0 or more."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def in_writes(payloads: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The payloads that a record can hold, in their order, as many together as one write takes: 128 KiB or one row."""
    together: list[bytes] = []
    size = 0
    for payload in payloads:
        if len(payload) > MAX_PAYLOAD_BYTES:
            continue
        size += HEADER.size + len(payload)
        if size > _WRITE_BYTES and together:
            yield together
            together, size = [], HEADER.size + len(payload)
        together.append(payload)
    if together:
        yield together
