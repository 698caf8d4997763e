"""The writing end of a spool: one growing segment, and the files that are not synced yet."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from recording.framing import HEADER, TORN, Record, encode_record, scan, write_whole
from recording.held_folder import HeldFolder
from recording.log import get_logger
from recording.row_version import ROW_VERSION
from recording.spool import segments
from recording.spool.records import FORM, ROW
from recording.spool.reservation import keep_room
from recording.spool.segments import SEGMENT_HEADER, Segment

T = TypeVar("T")

log = get_logger(__name__)

_RECORDS_PER_TURN = 256


class Appender:
    """Appends records. Only one thread at a time may call its methods, except sync()."""

    def __init__(self, folder: HeldFolder, acked: int, segment_bytes: int, ahead_bytes: int) -> None:
        """Finds the next record number. It never writes to a segment of an earlier run: a torn tail stays there.

        ahead_bytes: disk space is allocated this far ahead if possible, so that few appends have to allocate.

        Raises:
            OSError: the folder cannot be read.
            ForeignVersion: see segments.list_segments.
        """
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._ahead_bytes = min(ahead_bytes, segment_bytes)
        self.segments = segments.list_segments(folder)
        """The oldest first. The tuple is replaced, never modified, so that other threads can read it at any time."""
        if self.segments and bool(self._read(self.segments[-1], segments.holds_nothing)):
            folder.unlink(self.segments[-1].name)
            self.segments = self.segments[:-1]
        self.next = acked + 1
        """The number of the next record."""
        self.last_row_version = ROW_VERSION
        """The version of the last record of earlier runs."""
        if self.segments:
            last = self.segments[-1]
            number, self.last_row_version = self._read(last, lambda fd: _look_through(fd, last))
            self.next = max(self.next, number)
        self.first_of_run = self.next
        """Segments below this number are from earlier runs."""
        self.bytes = sum(segment.size for segment in self.segments)
        """The segments' size on disk."""
        self._fd: int | None = None
        self._kept_to = 0
        """The end of the growing segment's allocated blocks."""
        # A killed process has not synced its last rows.
        self._unsynced = tuple(segment.name for segment in self.segments)
        self._sealed: dict[int, int] = {}
        """Descriptors of this run's finished segments that are not synced, by their first numbers."""
        self._folder_changed = True

    def append(self, kind: int, payload: bytes, keep_bytes: int | None = 0, row_version: int = ROW_VERSION) -> int:
        """Writes a record, which then survives the death of the process, and returns its number.

        Args:
            kind: ROW or INTENT.
            payload: see encode_row.
            keep_bytes: disk space to allocate after this record, for later records. None: this is one of those, so it
                goes to the segment with the allocated space, however long that is.
            row_version: the version that the row was written with.

        Raises:
            OSError: it was not written, and nothing of it is left.
        """
        data = encode_record(self.next, kind, payload, row_version)
        fd = self._fd if keep_bytes is None else None
        if fd is None:
            fd = self._room_for(len(data), keep_bytes or 0)
        return self._write(fd, data, 1, rows=int(kind == ROW))

    def append_rows(self, payloads: Sequence[bytes], keep_bytes: int) -> int:
        """Writes rows in one go, in one segment, and returns the last one's number.

        Args:
            payloads: as for append; at least one.
            keep_bytes: as for append.

        Raises:
            OSError: none was written, and nothing of them is left.
        """
        records = [encode_record(number, ROW, each, ROW_VERSION) for number, each in enumerate(payloads, self.next)]
        data = b"".join(records)
        return self._write(self._room_for(len(data), keep_bytes), data, len(records), rows=len(records))

    def try_disk(self, size: int, keep_bytes: int, *, write: bool) -> None:
        """Finds out whether a record of this size could be appended now. It leaves nothing but allocated space.

        Args:
            size: of the record, with its header.
            keep_bytes: as for append.
            write: whether the last write failed, so that allocating space shows nothing.

        Raises:
            OSError: it could not.
        """
        fd = self._room_for(size, keep_bytes)
        if write or self._kept_to == sys.maxsize:  # or the file system allocates nothing
            # A process that dies in between leaves zeros, which count as a torn tail.
            try:
                write_whole(fd, bytes(size))
            finally:
                self._cut_back(fd)

    def take_unsynced(self) -> "Unsynced":
        """Takes the files that are to be synced."""
        taken = Unsynced(self._folder, self._unsynced, [*self._sealed.values()], self._fd, names=self._folder_changed)
        self._unsynced, self._sealed, self._folder_changed = (), {}, False
        return taken

    def is_there(self) -> bool:
        """Whether the growing segment's name still names it."""
        return self._fd is None or self._folder.holds(self.segments[-1].name, self._fd)

    def open_segment(self, segment: Segment) -> int:
        """Opens a segment for reading, even if its name is gone, as long as this process has it open.

        Raises:
            OSError: it cannot be opened.
        """
        own = self._fd if self.segments and segment.first == self.segments[-1].first else None
        own = self._sealed.get(segment.first) if own is None else own
        return self._folder.open(segment.name, os.O_RDONLY) if own is None else os.dup(own)

    def descriptors(self) -> list[int]:
        """The descriptors of the segments that it writes to, or wrote to and has not synced."""
        return [*self._sealed.values(), *([] if self._fd is None else [self._fd])]

    def abandon_segment(self) -> None:
        """Makes the next record begin another segment. The old one can still be read."""
        if self._fd is not None:
            self._sealed[self.segments[-1].first] = self._fd
            self._fd = None

    def begin_segment(self, keep_bytes: int) -> None:
        """Begins another segment now, with room for keep_bytes.

        Raises:
            OSError: it could not be created.
        """
        if self._fd is None:
            self._begin_segment(keep_bytes)

    def forget_segments(self, before: int) -> list[Segment]:
        """Removes and returns segments with only numbers below `before`, never the growing one. Their files remain."""
        kept = [segment for segment in self.segments[:-1] if segment.first >= before] + list(self.segments[-1:])
        forgotten = list(self.segments[: len(self.segments) - len(kept)])
        self.segments = tuple(kept)
        self.bytes -= sum(segment.size for segment in forgotten)
        return forgotten

    def _read(self, segment: Segment, look: Callable[[int], T]) -> T:
        fd = self._folder.open(segment.name, os.O_RDONLY)
        try:
            return look(fd)
        finally:
            os.close(fd)

    def _write(self, fd: int, data: bytes, records: int, rows: int) -> int:
        try:
            write_whole(fd, data)
        except OSError:
            self._cut_back(fd)
            raise
        segment = self.segments[-1]
        segment.size += len(data)
        if segment.rows is not None:
            segment.rows += rows
        self.bytes += len(data)
        self.next += records
        return self.next - 1

    def _room_for(self, size: int, keep_bytes: int) -> int:
        """The segment for a record of this size: a new one if the growing one would become too long."""
        fd = self._fd
        if fd is None or self.segments[-1].size + size > self._segment_bytes:
            return self._begin_segment(size + keep_bytes)
        if keep_bytes and self.segments[-1].size + size + keep_bytes > self._kept_to:
            self._kept_to = self._keep_room(fd, self.segments[-1].size, size + keep_bytes)
        return fd

    def _keep_room(self, fd: int, size: int, more: int) -> int:
        """Allocates more bytes at the end of a segment; returns the end of its allocated space."""
        ahead = self._ahead_bytes
        try:
            kept = keep_room(fd, size, more + ahead)
        except OSError:
            ahead = 0
            kept = keep_room(fd, size, more)
        return size + more + ahead if kept else sys.maxsize

    def _begin_segment(self, keep_bytes: int) -> int:
        segment = Segment(self.next, len(SEGMENT_HEADER), time.time_ns() // 1_000_000, rows=0)
        # A file with this name holds at most the beginning of a record that was never accepted.
        fd = self._folder.open(segment.name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            write_whole(fd, SEGMENT_HEADER)
            self._kept_to = self._keep_room(fd, segment.size, keep_bytes)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                self._folder.unlink(segment.name)
            raise
        if (same := self._sealed.pop(segment.first, None)) is not None:
            os.close(same)
        self.abandon_segment()
        self._fd = fd
        # A segment that was abandoned before its first record has the same name, and is now this file.
        self.segments = (*(known for known in self.segments if known.first != segment.first), segment)
        self.bytes = sum(known.size for known in self.segments)
        self._folder_changed = True
        return fd

    def _cut_back(self, fd: int) -> None:
        size = self._kept_to = self.segments[-1].size
        try:
            os.ftruncate(fd, size)  # which also frees the allocated space
        except OSError as error:
            log.warning("spool.segment_abandoned", segment=self.segments[-1].name, reason=error.strerror)
            self.abandon_segment()


class Unsynced:
    """Files to be synced. Syncing takes no lock, so that appends do not wait for it."""

    def __init__(
        self, folder: HeldFolder, earlier: tuple[str, ...], sealed: list[int], growing: int | None, *, names: bool
    ) -> None:
        """Takes ownership of `sealed`. `earlier` are segments of earlier runs; `names`: whether the folder changed."""
        self._folder = folder
        self._earlier = earlier
        self._sealed = sealed
        self._growing = growing
        self._names = names

    def sync(self) -> None:
        """Syncs the files, and closes finished segments.

        Raises:
            OSError: a sync failed. All others were tried.
        """
        failures = [*map(_sync_file, self._sealed), *map(self._sync_earlier, self._earlier)]
        if self._growing is not None:
            failures.append(_sync_file(self._growing))
        self.close()
        if self._names:
            self._folder.sync()
        for failure in filter(None, failures):
            raise failure

    def close(self) -> None:
        """Closes finished segments."""
        while self._sealed:
            os.close(self._sealed.pop())

    def _sync_earlier(self, name: str) -> OSError | None:
        """One by one, since a backlog may have more segments than a process may have files open."""
        try:
            fd = self._folder.open(name, os.O_RDONLY)
        except FileNotFoundError:  # trimmed meanwhile, or taken away: then reading shows it as missing
            return None
        except OSError as error:
            return error
        try:
            return _sync_file(fd)
        finally:
            os.close(fd)


def _sync_file(fd: int) -> OSError | None:
    try:
        os.fdatasync(fd)
    except OSError as error:
        return error
    return None


def _look_through(fd: int, segment: Segment) -> tuple[int, int]:
    """A number above those of all records in the segment, even if its end is damaged; and its last row version."""
    number = following = segment.first
    row_version = ROW_VERSION
    for count, found in enumerate(scan(fd, segments.first_record(fd), segment.size, segment.first, FORM)):
        if isinstance(found, Record):
            following = number = found.number + 1
            row_version = found.version
        else:
            # The numbers of any records that were there are not reused, so that they show as missing.
            following = number + (1 if found.reason == TORN else 1 + (found.stop - found.start) // HEADER.size)
        if count % _RECORDS_PER_TURN == 0:
            time.sleep(0)  # lets the event loop run while a thread opens an adopted folder
    return following, row_version
