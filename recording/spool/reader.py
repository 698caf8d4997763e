"""The reading end of a spool: batches from disk, in order, in bounded memory."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from recording.framing import Damage, Record, scan
from recording.log import get_logger
from recording.row_version import ROW_VERSION
from recording.spool import segments
from recording.spool.counters import Counters
from recording.spool.records import FORM, INTENT, ROW, Versioned, decode_row, is_tool_call
from recording.spool.segments import Segment

log = get_logger(__name__)

_RECORDS_PER_TURN = 1000


class Log(Protocol):
    """The segments that are read: an Appender, or what follows another process's."""

    segments: tuple[Segment, ...]
    """The oldest first."""
    next: int
    """The number of the next record."""
    first_of_run: int
    """Segments below this number are from earlier runs."""

    def open_segment(self, segment: Segment) -> int:
        """Opens a segment for reading.

        Raises:
            OSError: it cannot be opened.
        """
        ...


class Position(NamedTuple):
    """A position in a spool."""

    segment: int
    """The segment's `first`; 0 is before all segments."""
    offset: int
    """The offset of the next record; 0 is before the segment's header."""
    number: int
    """The number after that of the last record before it."""


@dataclass(slots=True)
class Batch:
    """Consecutive rows of a spool, all of one version."""

    first: int
    """The first number that it covers, including those of intents among the rows."""
    end: Position
    """The position after it."""
    numbers: list[int] = field(default_factory=list)
    """The number of each row."""
    payloads: list[bytes] = field(default_factory=list)
    """The payload of each row."""
    size: int = 0
    """The size of the payloads, in bytes."""
    row_version: int = ROW_VERSION
    """The version that the rows were written with."""

    @property
    def last(self) -> int:
        """The last number that it covers."""
        return self.end.number - 1

    def split(self) -> tuple["Batch", "Batch"]:
        """Its halves. Each covers the numbers up to its last row."""
        half = len(self.payloads) // 2
        middle = self.numbers[half - 1] + 1
        end = self.end._replace(number=middle)
        return (
            replace(self, end=end, numbers=self.numbers[:half], payloads=self.payloads[:half]),
            replace(self, first=middle, numbers=self.numbers[half:], payloads=self.payloads[half:]),
        )


class Reader:
    """Reads a spool from its oldest segment. All methods belong to one thread.

    While it reads segments of earlier runs, it pairs intents with outcomes; at their end it passes the open intents to
    `recover`, once.
    """

    def __init__(
        self,
        appender: Log,
        acked: int,
        counters: Counters,
        quarantine: Callable[[str, int, Damage], bool],
        recover: Callable[[list[Versioned]], None],
    ) -> None:
        self._appender = appender
        self._acked_before = acked
        self._counters = counters
        self._quarantine = quarantine
        self._recover = recover
        self.recovered = False
        first = min([acked + 1, *(segment.first for segment in appender.segments[:1])])
        self._in_segment, self._offset, self.next_number = Position(0, 0, first)
        """`next_number` is the number after that of the last record that was read."""
        self.read_to = 0
        """Everything below this number was read, or is missing."""
        self.missed = False
        """Whether a segment was missing, and no later record has shown that yet."""
        self._uncovered = first
        self._open: dict[str, tuple[int, Versioned]] = {}
        self._peeked: Record | Damage | None = None
        self._segment: Segment | None = None
        self._fd: int | None = None
        self._scan: Iterator[Record | Damage] = iter(())
        self._highest_read = 0
        self._highest_missing = acked

    @property
    def position(self) -> Position:
        """Its position."""
        return Position(self._in_segment, self._offset, self.next_number)

    def read(self, max_rows: int, max_bytes: int) -> Batch | None:
        """The next rows; None if there are none. An empty batch means that there may be more at the next call.

        One call takes about a millisecond at most, except for damage, whose bytes it copies.

        Raises:
            OSError: the disk cannot be read.
        """
        batch = Batch(self._uncovered, self.position)
        ahead = self._appender.next
        for _ in range(_RECORDS_PER_TURN):
            found = self._next()
            if found is None:
                if batch.payloads:
                    break
                if self.recovered:
                    self.read_to = ahead
                    return None
                self._finish_recovery()
            elif batch.payloads and not self._continues(batch, found, max_bytes):
                self._peeked = found
                break
            elif isinstance(found, Damage):
                self._set_aside(found)
            else:
                self._take(batch, found)
                if len(batch.payloads) == max_rows:
                    break
        batch.end = self.position
        if batch.payloads:
            self._uncovered = self.next_number
            self._counters.resent += bisect_right(batch.numbers, self._highest_read)
            self._highest_read = max(self._highest_read, batch.numbers[-1])
        return batch

    def rewind(self, position: Position) -> None:
        """Goes back to the end of the last acked batch."""
        self._in_segment, self._offset, self.next_number = position
        self.read_to = 0
        self._uncovered = position.number
        self._peeked = None
        self._leave_segment()

    def oldest_open_segment(self) -> int | None:
        """The `first` of the oldest segment of an earlier run with an intent whose outcome was not found yet."""
        return min((segment for segment, _ in self._open.values()), default=None)

    def peek(self, position: Position) -> tuple[bytes, int] | None:
        """The payload of the first row at or after position, independent of the reader's own; None if there is none.

        Beside it: when its segment began, in milliseconds since 1970.
        """
        for segment in self._appender.segments:
            if segment.first < position.segment:
                continue
            fd = self._appender.open_segment(segment)
            try:
                start = position.offset if segment.first == position.segment else 0
                start = start or segments.first_record(fd)
                for found in scan(fd, start, segment.size, position.number, FORM):
                    if isinstance(found, Record) and found.kind == ROW and found.number > self._acked_before:
                        return found.payload, segment.began_ms
            finally:
                os.close(fd)
        return None

    def close(self) -> None:
        """Closes the current file."""
        self._leave_segment()

    def _next(self) -> Record | Damage | None:
        if self._peeked is not None:
            found, self._peeked = self._peeked, None
            return found
        while True:
            following = next(self._scan, None)
            if following is not None or not self._go_on():
                return following

    def _go_on(self) -> bool:
        """Starts a scan of the next records; False if there are none."""
        segment = self._segment or self._find(self._in_segment)
        if segment is not None and self._offset < segment.size:
            self._begin_scan(segment)
            return True
        following = next((known for known in self._appender.segments if known.first > self._in_segment), None)
        if following is None or (not self.recovered and following.first >= self._appender.first_of_run):
            return False
        self._leave_segment()
        self._in_segment, self._offset = following.first, 0
        return True

    def _begin_scan(self, segment: Segment) -> None:
        if self._fd is None:
            try:
                self._segment, self._fd = segment, self._appender.open_segment(segment)
            except FileNotFoundError:
                log.warning("spool.segment_missing", segment=segment.name)
                self._offset = segment.size
                self.missed = True
                return
        self._offset = self._offset or segments.first_record(self._fd)
        self._scan = scan(self._fd, self._offset, segment.size, max(self.next_number, segment.first), FORM)

    def _find(self, first: int) -> Segment | None:
        return next((segment for segment in self._appender.segments if segment.first == first), None)

    def _leave_segment(self) -> None:
        self._scan = iter(())
        self._segment = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _continues(self, batch: Batch, found: Record | Damage, max_bytes: int) -> bool:
        """Whether found fits into the batch: of its version, without a missing number between, and not too large."""
        if isinstance(found, Damage) or found.number != self.next_number:
            return False
        fits = found.version == batch.row_version and batch.size + len(found.payload) <= max_bytes
        return found.kind == INTENT or fits

    def _take(self, batch: Batch, found: Record) -> None:
        number, kind, payload, stop, row_version = found
        self.missed = False
        if number != self.next_number:
            self._note_missing(self.next_number, number)
            batch.first = self._uncovered = number
        self._offset = stop
        self.next_number = number + 1
        if not self.recovered:
            self._pair(found)
        if number <= self._acked_before:
            batch.first = self._uncovered = number + 1
        elif kind == ROW:
            batch.numbers.append(number)
            batch.payloads.append(payload)
            batch.row_version = row_version
            batch.size += len(payload)

    def _pair(self, found: Record) -> None:
        if found.kind == INTENT:
            self._open[decode_row(found.payload).id] = (self._in_segment, Versioned(found.version, found.payload))
        elif self._open and is_tool_call(found.payload):
            self._open.pop(decode_row(found.payload).id, None)

    def _finish_recovery(self) -> None:
        self._recover([payload for _, payload in self._open.values()])
        self._open = {}
        self.recovered = True

    def _set_aside(self, damage: Damage) -> None:
        # Only the scan of an open segment finds damage.
        assert self._segment is not None and self._fd is not None  # noqa: S101, PT018
        self._offset = damage.stop
        if self._quarantine(self._segment.name, self._fd, damage):
            self._counters.quarantined += 1

    def _note_missing(self, expected: int, found: int) -> None:
        """Counts missing numbers, each once however often they are passed."""
        missing = found - max(expected, self._highest_missing + 1)
        if missing > 0:
            self._counters.missing += missing
            self._highest_missing = found - 1
            log.warning("spool.records_missing", first=found - missing, last=found - 1)
