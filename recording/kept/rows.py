"""The acked rows that a state directory still has: kept segments, and what spools have not let go of yet.

The files are read as they lie, whoever appends to them or sends from them meanwhile.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from recording.framing import Record, scan
from recording.kept.folder import list_kept
from recording.spool.folders import FOLDER_NAME
from recording.spool.reader import Batch, Position
from recording.spool.records import FORM, ROW
from recording.spool.segments import first_record
from recording.spool.state import acked_number

_SEGMENT = "*.segment"


class AckedSegment(NamedTuple):
    """A file with acked rows."""

    producer_id: str
    """The spool's id."""
    first: int
    """The lowest record number that it can hold."""
    path: Path
    acked: int
    """Records up to this number are acked."""


def acked_segments(root: Path) -> list[AckedSegment]:
    """All below the parent of all spool folders, by producer, the oldest first."""
    found = [segment for folder in _spools(root) for segment in _in_spool(folder)]
    # behind the spools, or what is moved in between would be in neither
    found += [AckedSegment(kept.producer_id, kept.first, kept.path, 2**63) for kept in list_kept(root)]
    return sorted({segment[:2]: segment for segment in found}.values())


def _spools(root: Path) -> list[Path]:
    with suppress(OSError):
        return [path for path in root.iterdir() if FOLDER_NAME.fullmatch(path.name)]
    return []


def _in_spool(folder: Path) -> list[AckedSegment]:
    acked = acked_number(folder)
    firsts = sorted((int(path.stem), path) for path in folder.glob(_SEGMENT) if path.stem.isdecimal())
    return [AckedSegment(folder.name, first, path, acked) for first, path in firsts if first <= acked]


def read_batches(root: Path, max_rows: int, max_bytes: int) -> Iterator[tuple[str, Batch]]:
    """The rows with their numbers, as batches that can be sent; beside each the spool's id.

    Raises:
        OSError: the disk cannot be read.
    """
    batch, producer_id = _empty(0), ""
    for segment in acked_segments(root):
        if segment.producer_id != producer_id:
            if batch.payloads:
                yield producer_id, batch
            batch, producer_id = _empty(0), segment.producer_id
        for record in _records(root, segment):
            follows = record.number == batch.end.number
            is_row = record.kind == ROW
            full = len(batch.payloads) >= max_rows or batch.size + len(record.payload) > max_bytes
            if not follows or (is_row and batch.payloads and (full or record.version != batch.row_version)):
                if batch.payloads:
                    yield producer_id, batch
                batch = _empty(record.number)
            batch.end = batch.end._replace(number=record.number + 1)
            if is_row:
                batch.numbers.append(record.number)
                batch.payloads.append(record.payload)
                batch.size += len(record.payload)
                batch.row_version = record.version
    if batch.payloads:
        yield producer_id, batch


def sample(root: Path, rows: int, wanted: Callable[[bytes], bool]) -> list[tuple[str, Batch]]:
    """Rows for a look whether the ledger has them, each as a batch of its own; beside it the spool's id.

    The last that is acked, and others by chance. wanted: whether a payload is of a kind that is looked for.

    Raises:
        OSError: the disk cannot be read.
    """
    segments = acked_segments(root)
    if not segments:
        return []
    newest = {segment.producer_id: segment for segment in segments}.values()
    found = [_last(root, max(newest, key=_changed_at), wanted)]
    found += [_by_chance(root, random.choice(segments), wanted) for _ in range(rows - 1)]  # noqa: S311 - no secret
    return list({(spool_id, batch.first): (spool_id, batch) for spool_id, batch in filter(None, found)}.values())


def _changed_at(segment: AckedSegment) -> int:
    with suppress(OSError):
        return segment.path.stat().st_mtime_ns
    return 0


def _last(root: Path, segment: AckedSegment, wanted: Callable[[bytes], bool]) -> tuple[str, Batch] | None:
    last = None
    for record in _records(root, segment):
        if record.kind == ROW and wanted(record.payload):
            last = record
    return last and (segment.producer_id, _batch_of(last))


def _by_chance(root: Path, segment: AckedSegment, wanted: Callable[[bytes], bool]) -> tuple[str, Batch] | None:
    skip = 0
    with suppress(OSError):
        skip = random.randrange(max(1, segment.path.stat().st_size))  # noqa: S311 - no secret
    for start in (skip, 0):
        for record in _records(root, segment, start):
            if record.kind == ROW and wanted(record.payload):
                return segment.producer_id, _batch_of(record)
    return None


def _batch_of(record: Record) -> Batch:
    number, payload = record.number, record.payload
    return Batch(number, Position(0, 0, number + 1), [number], [payload], len(payload), record.version)


def _records(root: Path, segment: AckedSegment, skip: int = 0) -> Iterator[Record]:
    """The acked records of a segment, from the first that begins at or after the offset skip."""
    try:
        fd = _open(root, segment)
    except FileNotFoundError:  # the oldest go
        return
    try:
        size = os.fstat(fd).st_size
        for found in scan(fd, max(first_record(fd), skip), size, segment.first, FORM):
            if isinstance(found, Record):
                if found.number > segment.acked:
                    return
                yield found
    finally:
        os.close(fd)


def _open(root: Path, segment: AckedSegment) -> int:
    try:
        return os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        for kept in list_kept(root):  # its spool was done with it just now
            if (kept.producer_id, kept.first) == segment[:2]:
                return os.open(kept.path, os.O_RDONLY | os.O_CLOEXEC)
        raise


def _empty(first: int) -> Batch:
    return Batch(first, Position(0, 0, first))
