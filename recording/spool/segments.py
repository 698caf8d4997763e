"""Segments: the files that hold the records of a spool. A file's name is the first number that it can hold."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SEGMENT_HEADER = b"onrecord/spool 1"

_NAME = re.compile(r"(\d{20})\.segment")
_ANY_VERSION = re.compile(rb"onrecord/spool \d")


class ForeignVersion(Exception):
    """A segment was written by a version of this program with another format. The message names the file."""


class Files(Protocol):
    """A folder's files; see HeldFolder."""

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
    """Bytes that may be read: up to here all writes have ended."""
    began_ms: int
    """When its first record was written; of a segment of an earlier run, when its last was."""
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
        ForeignVersion: one has a format of another version, so that the folder is not this program's to touch.
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
    """The offset at which the records of the segment fd begin: 0 when its header is damaged, so that it is told."""
    return len(SEGMENT_HEADER) if _first_bytes(fd) == SEGMENT_HEADER else 0


def holds_nothing(fd: int) -> bool:
    """Whether the process that made the segment fd died before its first record."""
    start = os.pread(fd, len(SEGMENT_HEADER) + 1, 0)
    return SEGMENT_HEADER.startswith(start)


def sync_folder(folder: Path) -> None:
    """Makes the names in folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _first_bytes(fd: int) -> bytes:
    return os.pread(fd, len(SEGMENT_HEADER), 0)
