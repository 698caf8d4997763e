"""What was said in a session: a file of records, which are appended during turns and never changed."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gateway_svc.conversations.encryption import OVERHEAD_BYTES, Cipher
from gateway_svc.conversations.messages import Line
from gateway_svc.conversations.records import ASSISTANT, SUMS, TOOL, USER, Found
from gateway_svc.conversations.said import Place, Said
from recording.framing import TORN, Damage, Form, Record, encode_record, scan, write_whole

BEGINNING = b"onrecord/sessions 1"
"""Of both files of a session."""
VERSION = 1
"""Of the records' payloads."""

FORM = Form({USER, ASSISTANT, TOOL, SUMS}, 2**28 + OVERHEAD_BYTES)


class Transcript:
    """An open transcript."""

    def __init__(self, path: Path, cipher: Cipher) -> None:
        """Opens the file, which is made if it is not there.

        Raises:
            OSError: it cannot be opened.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._cipher = cipher
        self._end = 0
        self._number = 1
        self._dirty = False
        """Whether there is something behind the end that could not be cut off."""

    @property
    def identity(self) -> tuple[int, int]:
        """Which file it is, whatever its name."""
        about = os.fstat(self._fd)
        return about.st_dev, about.st_ino

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return os.fstat(self._fd).st_size

    @property
    def position(self) -> tuple[int, int]:
        """Where the next record goes, and its number."""
        return self._end, self._number

    def go_to(self, end: int, number: int) -> None:
        """Makes the next record go there. What lies behind is the beginning of a record that was never whole."""
        self._end, self._number, self._dirty = end, number, end < self.size

    def append(self, kind: int, payload: bytes) -> None:
        """Appends a record.

        Raises:
            OSError: it could not be written, and the next record goes in its place.
        """
        if self._dirty:
            os.ftruncate(self._fd, self._end)
            self._dirty = False
        data = encode_record(self._number, kind, self._cipher.encrypt(kind, self._number, payload), VERSION)
        if not self._end:
            data = BEGINNING + data
        os.lseek(self._fd, self._end, os.SEEK_SET)
        try:
            write_whole(self._fd, data)
        except OSError:
            self._dirty = True
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
                self._dirty = False
            raise
        self._end += len(data)
        self._number += 1

    def read(self, start: int = 0, number: int = 1) -> Found:
        """Reads from a record on.

        Raises:
            KeyMissing: a key that a record is encrypted by is not there.
            OSError: it cannot be read.
        """
        return read(self._fd, self._cipher, start, number)

    def sync(self) -> None:
        """Returns when all that was appended would survive a power cut.

        Raises:
            OSError: it would not.
        """
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def read(fd: int, cipher: Cipher, start: int = 0, number: int = 1) -> Found:
    """Reads the transcript fd from a record on, which has at least this number; 0 is the beginning of the file.

    Raises:
        KeyMissing: a key that a record is encrypted by is not there.
        OSError: it cannot be read.
    """
    size = os.fstat(fd).st_size
    if not start and os.pread(fd, len(BEGINNING), 0) == BEGINNING:
        start = len(BEGINNING)
    found, damaged = Found(end=start, number=number), False
    for part in scan(fd, start, size, number, FORM):
        if isinstance(part, Damage):
            if part.stop == size and part.reason == TORN:
                break  # what a crash left of a record that nobody was told of
            damaged, found.end = True, part.stop
            at = f"record {found.number}" if found.number > 1 else "its beginning"
            found.holes.append(f"{part.stop - part.start} bytes at {at} are damaged")
            found.number += part.stop == size  # the number of what was there is not used again
            continue
        if part.number > found.number and not damaged:
            found.holes.append(f"records {found.number} to {part.number - 1} are missing")
        damaged, found.end, found.number = False, part.stop, part.number + 1
        if (payload := found.decrypt(cipher, part.number, part.kind, part.payload)) is None:
            continue
        if part.kind == SUMS:
            found.sums = found.decode(payload, part.number) or found.sums
            continue
        found.add(part.number, part.kind, payload)
    found.decode_all()
    return found


def lines(fd: int, cipher: Cipher) -> Iterator[Line]:
    """Each message of the transcript fd as a JSON object, and {"damaged": why} in the places of what cannot be read.

    Raises:
        KeyMissing, OSError: as said_after().
    """
    return (said.line for said, _, _ in said_after(fd, cipher, Place(0, 0)))


def said_after(fd: int, cipher: Cipher, after: Place) -> Iterator[tuple[Said, int, Place]]:
    """What was said in the transcript fd from a place on, with its size in bytes, and the place behind it.

    Raises:
        KeyMissing: a key that a record is encrypted by is not there.
        OSError: it cannot be read.
    """
    size, (number, start) = os.fstat(fd).st_size, after
    if start and number and not _begins(fd, start, size):
        start = _place_of(fd, number, size)  # the file was written anew since, see rewriting.py
    if not start:
        number, start = 1, len(BEGINNING) if os.pread(fd, len(BEGINNING), 0) == BEGINNING else 0
    for part in scan(fd, start, size, number, FORM):
        if isinstance(part, Damage):
            if part.reason != TORN:  # else the beginning of a record that was never whole, or is being written
                number, told = 0, f"{part.stop - part.start} bytes: {part.reason}"
                yield Said(0, {"damaged": told}), len(told), Place(0, part.stop)
            start = part.stop
            continue
        if number and part.number > number:
            told = f"records {number} to {part.number - 1} are missing"
            yield Said(0, {"damaged": told}), len(told), Place(part.number, start)
        number, start = part.number + 1, part.stop
        if part.kind != SUMS:
            found = Found()
            payload = found.decrypt(cipher, part.number, part.kind, part.payload)
            line = None if payload is None else found.decode(payload, part.number)
            said = Said(0, {"damaged": found.holes[0]}) if line is None else Said(part.number, line)
            yield said, len(part.payload), Place(number, start)


def _begins(fd: int, at: int, size: int) -> bool:
    """Whether a record begins at an offset, or the file has ended there."""
    return at == size or isinstance(next(scan(fd, at, size, 1, FORM), None), Record)


def _place_of(fd: int, number: int, size: int) -> int:
    """The offset of the first record with at least this number, else the end of the file."""
    start = len(BEGINNING)
    for part in scan(fd, start, size, 1, FORM):
        if isinstance(part, Record) and part.number >= number:
            return start
        start = part.stop
    return size
