"""The one format of logs on disk, for the spool's segments and for conversations.

    magic 4 | checksum 4 | length 4 | number 8 | kind 1 | version 2 | payload (length bytes)        little endian

The checksum (CRC-32) covers everything after it. Numbers grow by one from record to record, so that a missing one
shows. A record is whole or not there: what a crash, a full disk or a damaged block left of one is told as damage, and
costs no other record. What kinds, versions and payloads mean is the log's own.

Payloads should not hold the byte 0xff, as UTF-8 text never does: nothing in them can then look like a record.
"""

import errno
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

MAGIC = b"\xffrec"
HEADER = struct.Struct("<4sIIQBH")
TORN = "the file ends inside a record"
"""Also if zeros follow: after a power cut a file can have its new size without its last bytes."""

_UNCHECKED_BYTES = 8
_CHUNK_BYTES = 256 * 2**10
_FRAME = struct.Struct("<4sI")
_HEAD = struct.Struct("<IQBH")


class Record(NamedTuple):
    """A record in a file."""

    number: int
    kind: int
    payload: bytes
    stop: int
    """The offset of its end."""
    version: int


class Damage(NamedTuple):
    """Bytes of a file that are not a record."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True, slots=True)
class Form:
    """What the records of a log can be. Everything else is damage."""

    kinds: Collection[int]
    max_payload_bytes: int


def encode_record(number: int, kind: int, payload: bytes, version: int) -> bytes:
    """The record's bytes in a file."""
    checked = _HEAD.pack(len(payload), number, kind, version) + payload
    return _FRAME.pack(MAGIC, zlib.crc32(checked)) + checked


def write_whole(fd: int, data: bytes) -> None:
    """Writes all of data where the file's offset is, however little of it each write takes.

    Raises:
        OSError: it could not be written. A part of it may be there: see append_whole().
    """
    written = os.write(fd, data)
    while written < len(data):  # a disk that is full takes what it has room for, and refuses the next write
        more = os.write(fd, memoryview(data)[written:])
        if not more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more


def append_whole(fd: int, data: bytes) -> None:
    """Appends data to a file, or nothing of it.

    Raises:
        OSError: it could not be written.
    """
    end = os.lseek(fd, 0, os.SEEK_END)
    try:
        write_whole(fd, data)
    except OSError:
        with suppress(OSError):  # where that fails too, the rest is a torn record
            os.ftruncate(fd, end)
        raise


def read_at(fd: int, size: int, at: int) -> bytes:
    """The bytes [at, at + size) of a file of any size; fewer where it ends before, however little each read gives.

    Raises:
        OSError: the file cannot be read.
    """
    data = os.pread(fd, size, at)
    while len(data) < size and (more := os.pread(fd, size - len(data), at + len(data))):
        data += more
    return data


def scan(fd: int, start: int, stop: int, number: int, form: Form) -> Iterator[Record | Damage]:
    """Yields the records between the offsets start and stop of the file fd, and the damage between them.

    A record with a number below `number`, or below an earlier one, is damage: old bytes from the file system. After
    damage the scan continues with the next intact record.

    Raises:
        OSError: the file cannot be read.
    """
    window = _Window(fd, stop, form)
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

    def __init__(self, fd: int, stop: int, form: Form) -> None:
        self._fd = fd
        self._stop = stop
        self._form = form
        self._start = 0
        self._bytes = b""

    def parse(self, at: int, number: int) -> Record | str:
        """The record at offset at, or why there is none."""
        index = self._index(at, HEADER.size)
        if index is None:
            return TORN
        magic, checksum, length, found, kind, version = HEADER.unpack_from(self._bytes, index)
        if magic != MAGIC:
            return "no record begins here"
        if length > self._form.max_payload_bytes:
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
        if kind not in self._form.kinds:
            return "the kind is unknown"
        return Record(found, kind, checked[_HEAD.size :], at + HEADER.size + length, version)

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
        begun = read_at(self._fd, HEADER.size, at).ljust(HEADER.size, b"\0")
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
        self._bytes = read_at(self._fd, min(max(size, _CHUNK_BYTES), self._stop - at), at)
        self._start = at
        return 0 if len(self._bytes) >= size else None
