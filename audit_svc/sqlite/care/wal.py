"""What a -wal holds that SQLite does not read: it stops at the first frame whose checksum is wrong, and says nothing.

The format is that of https://sqlite.org/fileformat.html#walformat.
"""

import struct
from pathlib import Path
from typing import IO, NamedTuple

from audit_svc.ledger.progress import OnProgress

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""The first number of the file, and the byte order in which its checksums are made."""

Sums = tuple[int, int]


class Unread(NamedTuple):
    """What is behind the first damage in a -wal."""

    pages: int
    commits: int
    """How many of those pages end a transaction."""
    is_header: bool = False
    """Whether it is the header that is damaged, so that nothing at all is read; the commits are not known then."""


def unread(wal: Path, on_progress: OnProgress) -> Unread:
    """What SQLite does not read of a WAL that nobody writes. About 0.3 s for 10 MiB. Raises OSError."""
    with wal.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        size = wal.stat().st_size
        if len(header) < _HEADER_BYTES:
            return Unread(0, 0)
        magic, _, page, _, *salts, first, second = struct.unpack(">8I", header)
        order = _MAGIC.get(magic)
        if order is None or not 512 <= page <= 65536 or _sums(order, header[:24], (0, 0)) != (first, second):
            return Unread(0, 0, is_header=size > _HEADER_BYTES)
        return _behind_damage(file, order, page, tuple(salts), (first, second), on_progress)


def _behind_damage(
    file: IO[bytes], order: str, page: int, salts: tuple[int, ...], sums: Sums, on_progress: OnProgress
) -> Unread:
    pages = commits = 0
    is_sound = True
    while len(frame := file.read(_FRAME_HEADER_BYTES + page)) > _FRAME_HEADER_BYTES:
        on_progress(0, 0)
        _, database_pages, *found, first, second = struct.unpack(">6I", frame[:_FRAME_HEADER_BYTES])
        if is_sound and tuple(found) == salts and len(frame) == _FRAME_HEADER_BYTES + page:
            sums = _sums(order, frame[:8] + frame[_FRAME_HEADER_BYTES:], sums)
            is_sound = sums == (first, second)
        else:
            is_sound = False
        # Frames with other salts are of the time before the WAL began anew, and in the database.
        if not is_sound and tuple(found) == salts:
            pages += 1
            commits += database_pages > 0
    return Unread(pages, commits)


def _sums(order: str, data: bytes, sums: Sums) -> Sums:
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    first, second = sums
    for word, next_word in zip(words, words, strict=True):
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next_word + first) & 0xFFFFFFFF
    return first, second
