"""The format of a record, and how to find the records of a damaged segment.

    magic 4 | checksum 4 | length 4 | number 8 | kind 1 | row version 2 | payload (length bytes)        little endian

The checksum (CRC-32) covers everything after it. Numbers grow by one over the life of the spool's folder. A payload is
the piece of a RecordRequest that holds the row, with tag and length, so that concatenated payloads are a RecordRequest,
and sending encodes nothing again. The row version is that of the program that wrote the row: it goes with the row to
the ledger, whichever version of the program sends it.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from onrecord.audit.v1 import audit_pb2

from recording.logger import Row
from recording.row_version import ROW_VERSION

ROW = 1
"""The payload is a row to send."""
INTENT = 2
"""The payload is the row of a tool call that is about to run; it is not sent."""

MAX_PAYLOAD_BYTES = 256 * 2**10
MAGIC = b"\xffrec"  # 0xff occurs in no UTF-8 text, so no text in a payload can look like a record
HEADER = struct.Struct("<4sIIQBH")
TORN = "the file ends inside a record"
"""Also if zeros follow: after a power cut a file can have its new size without its last bytes."""

_UNCHECKED_BYTES = 8
_CHUNK_BYTES = 256 * 2**10
_FRAME = struct.Struct("<4sI")
_HEAD = struct.Struct("<IQBH")
_TAGS: dict[type, bytes] = {
    audit_pb2.AuditRow: bytes([audit_pb2.RecordRequest.TOOL_CALLS_FIELD_NUMBER << 3 | 2]),
    audit_pb2.CostRow: bytes([audit_pb2.RecordRequest.MODEL_REQUESTS_FIELD_NUMBER << 3 | 2]),
    audit_pb2.SessionRow: bytes([audit_pb2.RecordRequest.SESSIONS_FIELD_NUMBER << 3 | 2]),
}
_TOOL_CALL_TAG = _TAGS[audit_pb2.AuditRow]
_KIND_OF_FIELD = audit_pb2.RecordRequest.TOOL_CALLS_FIELD_NUMBER - audit_pb2.ROW_KIND_TOOL_CALL
"""RowKind numbers the lists of a RecordRequest in the order of their fields, those of later versions too."""


class UnknownRow(Exception):
    """A newer version of this program wrote a row of a kind that this one does not know."""


class Versioned(NamedTuple):
    """An encoded row, and the version that it was written with."""

    row_version: int
    payload: bytes


class Record(NamedTuple):
    """A record in a segment."""

    number: int
    kind: int
    payload: bytes
    stop: int
    """The offset of its end."""
    row_version: int = ROW_VERSION


class Damage(NamedTuple):
    """Bytes of a segment that are not a record."""

    start: int
    stop: int
    reason: str


def encode_row(row: Row) -> bytes:
    """The payload of row."""
    body = row.SerializeToString()
    return _TAGS[type(row)] + encode_varint(len(body)) + body


def decode_row(payload: bytes) -> Row:
    """Decodes the row of a payload.

    Raises:
        google.protobuf.message.DecodeError: it is not a row.
        UnknownRow: it is one of a kind that a newer version added.
    """
    request = audit_pb2.RecordRequest.FromString(payload)
    rows: list[Row] = [*request.tool_calls, *request.model_requests, *request.sessions]
    if not rows:
        raise UnknownRow("a newer version of this program wrote this row: use that one")
    return rows[0]


def kind_of_row(payload: bytes) -> int:
    """Which list of a RecordRequest the row of a payload is in: an audit_pb2.RowKind, or one of a newer version."""
    return (payload[0] >> 3) - _KIND_OF_FIELD


def is_tool_call(payload: bytes) -> bool:
    """Whether a payload holds an AuditRow."""
    return payload.startswith(_TOOL_CALL_TAG)


def encode_record(number: int, kind: int, payload: bytes, row_version: int = ROW_VERSION) -> bytes:
    """The record's bytes in a segment."""
    checked = _HEAD.pack(len(payload), number, kind, row_version) + payload
    return _FRAME.pack(MAGIC, zlib.crc32(checked)) + checked


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


def scan(fd: int, start: int, stop: int, number: int) -> Iterator[Record | Damage]:
    """Yields the records between the offsets start and stop of the file fd, and the damage between them.

    A record with a number below `number`, or below an earlier one, is damage: old bytes from the file system. After
    damage the scan continues with the next intact record.

    Raises:
        OSError: the file cannot be read.
    """
    window = _Window(fd, stop)
    at = start
    while at < stop:
        found = window.parse(at, number)
        if isinstance(found, str):
            resumed = window.resynchronise(at + 1, number)
            torn = resumed == stop and (found == TORN or window.ends_in_zeros(at))
            yield Damage(at, resumed, TORN if torn else found)
            at = resumed
        else:
            yield found
            at, number = found.stop, found.number + 1


class _Window:
    """A window of a file in memory, moved as needed."""

    def __init__(self, fd: int, stop: int) -> None:
        self._fd = fd
        self._stop = stop
        self._start = 0
        self._bytes = b""

    def parse(self, at: int, number: int) -> Record | str:
        """The record at offset at, or why there is none."""
        index = self._index(at, HEADER.size)
        if index is None:
            return TORN
        magic, checksum, length, found, kind, row_version = HEADER.unpack_from(self._bytes, index)
        if magic != MAGIC:
            return "no record begins here"
        if length > MAX_PAYLOAD_BYTES:
            return "the length is impossible"
        index = self._index(at, HEADER.size + length)
        if index is None:
            return TORN
        stop = index + HEADER.size + length
        checked = self._bytes[index + _UNCHECKED_BYTES : stop]
        if zlib.crc32(checked) != checksum:
            return "the checksum does not fit"
        if found < number:
            return "the number is too low"
        if kind not in (ROW, INTENT):
            return "the kind is unknown"
        return Record(found, kind, checked[_HEAD.size :], at + HEADER.size + length, row_version)

    def resynchronise(self, at: int, number: int) -> int:
        """The offset of the next intact record at or after at, else the end of the scan."""
        while (index := self._index(at, len(MAGIC))) is not None:
            found = self._bytes.find(MAGIC, index)
            if found < 0:
                at = self._start + len(self._bytes) - len(MAGIC) + 1
                continue
            at = self._start + found
            if not isinstance(self.parse(at, number), str):
                return at
            at += 1
        return self._stop

    def ends_in_zeros(self, at: int) -> bool:
        """Whether the file ends in zeros, after at most the beginning of one record at offset at."""
        begun = os.pread(self._fd, HEADER.size, at).ljust(HEADER.size, b"\0")
        if MAGIC.startswith(begun.rstrip(b"\0")):
            at += len(MAGIC)
        elif begun.startswith(MAGIC):
            at += HEADER.size + HEADER.unpack(begun)[2]
        at = min(at, self._stop - 1)
        while chunk := os.pread(self._fd, min(_CHUNK_BYTES, self._stop - at), at):
            if chunk.count(0) < len(chunk):
                return False
            at += len(chunk)
        return True

    def _index(self, at: int, size: int) -> int | None:
        """The index of the bytes [at, at + size) in self._bytes; None if the file ends before them."""
        index = at - self._start
        if index >= 0 and index + size <= len(self._bytes):
            return index
        if at + size > self._stop:
            return None
        self._bytes = os.pread(self._fd, min(max(size, _CHUNK_BYTES), self._stop - at), at)
        self._start = at
        return 0 if len(self._bytes) >= size else None
