"""Segments: the files with the records of a spool. A file's name is the lowest record number that it can hold."""

import os
import re
from dataclasses import dataclass
from typing import Protocol

SEGMENT_HEADER = b"onrecord/spool 2"

_NAME = re.compile(r"(\d{20})\.segment")
_ANY_VERSION = re.compile(rb"onrecord/spool \d")


class ForeignVersion(Exception):
    """Another version of this program wrote a segment in another format. The message names the file."""


class Files(Protocol):
    """A folder's files (see HeldFolder)."""

    def names(self) -> list[str]:
        """The names in it."""
        ...

    def open(self, name: str, flags: int) -> int:
        """A descriptor of one of its files."""
        ...


@dataclass(slots=True)
class Segment:
    """One file."""

    first: int
    """The lowest number that it can hold."""
    size: int
    """The readable size in bytes: all writes up to here are complete."""
    began_ms: int
    """When its first record was written, or its last for a segment of an earlier run."""
    rows: int | None = None
    """How many of its records are rows; None for a segment of an earlier run."""

    @property
    def name(self) -> str:
        """Its name in the folder."""
        return f"{self.first:020d}.segment"


def list_segments(folder: Files) -> tuple[Segment, ...]:
    """The segments of a folder, the oldest first.

    Raises:
        OSError: one cannot be read.
        ForeignVersion: one has another version's format, so this program must not touch the folder.
    """
    found = []
    for name in folder.names():
        if match := _NAME.fullmatch(name):
            fd = folder.open(name, os.O_RDONLY)
            try:
                start, about = _first_bytes(fd), os.fstat(fd)
            finally:
                os.close(fd)
            if _ANY_VERSION.fullmatch(start) and start != SEGMENT_HEADER:
                raise ForeignVersion(f"{name} has a format that this version does not know: {start!r}")
            found.append(Segment(int(match[1]), about.st_size, about.st_mtime_ns // 1_000_000))
    return tuple(sorted(found, key=lambda segment: segment.first))


def first_record(fd: int) -> int:
    """The offset of the first record in the segment fd: 0 if its header is damaged, so that it shows as damage."""
    return len(SEGMENT_HEADER) if _first_bytes(fd) == SEGMENT_HEADER else 0


def holds_nothing(fd: int) -> bool:
    """Whether the process that created the segment fd died before its first record."""
    start = os.pread(fd, len(SEGMENT_HEADER) + 1, 0)
    return SEGMENT_HEADER.startswith(start)


def _first_bytes(fd: int) -> bytes:
    return os.pread(fd, len(SEGMENT_HEADER), 0)
