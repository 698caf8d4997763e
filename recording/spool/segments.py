"""Segments: the files that hold the records of a spool. A file's name is the first number that it can hold."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

SEGMENT_HEADER = b"onrecord/spool 1"
FILE_MODE = 0o600
FOLDER_MODE = 0o700

_NAME = re.compile(r"(\d{20})\.segment")
_ANY_VERSION = re.compile(rb"onrecord/spool \d")


class ForeignVersion(Exception):
    """A segment was written by a version of this program with another format. The message names the file."""


@dataclass(slots=True)
class Segment:
    """One file."""

    first: int
    """The lowest number that it can hold."""
    path: Path
    size: int
    """Bytes that may be read: up to here all writes have ended."""


def segment_path(folder: Path, first: int) -> Path:
    """Where the segment that begins with the number `first` lies."""
    return folder / f"{first:020d}.segment"


def list_segments(folder: Path) -> tuple[Segment, ...]:
    """The segments of a folder, the oldest first.

    Raises:
        ForeignVersion: one has a format of another version, so that the folder is not this program's to touch.
    """
    found = []
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            start = _first_bytes(path)
            if _ANY_VERSION.fullmatch(start) and start != SEGMENT_HEADER:
                raise ForeignVersion(f"{path} has a format that this version does not know: {start!r}")
            found.append(Segment(int(match[1]), path, path.stat().st_size))
    return tuple(sorted(found, key=lambda segment: segment.first))


def first_record(fd: int) -> int:
    """The offset at which the records of the segment fd begin: 0 when its header is damaged, so that it is told."""
    return len(SEGMENT_HEADER) if os.pread(fd, len(SEGMENT_HEADER), 0) == SEGMENT_HEADER else 0


def holds_nothing(segment: Segment) -> bool:
    """Whether the process that made the segment died before its first record."""
    return segment.size <= len(SEGMENT_HEADER) and SEGMENT_HEADER.startswith(_first_bytes(segment.path))


def sync_folder(folder: Path) -> None:
    """Makes the names in folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(SEGMENT_HEADER))
