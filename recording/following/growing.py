"""The segments of a folder that another process writes to, as far as their records are whole."""

import os
import re

from recording.framing import Record, scan
from recording.held_folder import HeldFolder
from recording.spool.records import FORM, ROW
from recording.spool.segments import SEGMENT_HEADER, ForeignVersion, Segment

_NAME = re.compile(r"(\d{20})\.segment")
_LOOK_BYTES = 2**20
"""As much of a segment is looked through at once: four times the largest record."""


class GrowingLog:
    """What a Reader needs of an Appender, from the files alone. All methods belong to one thread."""

    first_of_run = 0
    """No segment is of an earlier run: whether calls ended is not known while their process lives."""

    def __init__(self, folder: HeldFolder) -> None:
        self._folder = folder
        self.segments: tuple[Segment, ...] = ()
        """The oldest first. A segment's size is the end of its last whole record, until it is finished."""
        self.next = 1
        """The number after that of the last record."""
        self.last_row = 0
        """The number of the last row."""

    def refresh(self) -> bool:
        """Looks for records; returns whether there may be more at once.

        Raises:
            OSError: the disk cannot be read.
            ForeignVersion: another version of this program writes there.
        """
        known = {segment.first: segment for segment in self.segments}
        firsts = sorted(int(match[1]) for name in self._folder.names() if (match := _NAME.fullmatch(name)))
        self.segments = tuple(known.get(first) or Segment(first, 0, 0) for first in firsts)
        for segment in self.segments:
            if segment.rows is None and self._look(segment, finished=segment.first != firsts[-1]):
                return True
        return False

    def open_segment(self, segment: Segment) -> int:
        """Opens a segment for reading.

        Raises:
            OSError: it cannot be opened.
        """
        return self._folder.open(segment.name, os.O_RDONLY)

    def _look(self, segment: Segment, *, finished: bool) -> bool:
        """Takes in what is new of a segment; returns whether there is more. `rows` is set when it is done with."""
        try:
            fd = self.open_segment(segment)
        except FileNotFoundError:  # all of it is acked, and its process has just removed it
            return False
        try:
            end = os.fstat(fd).st_size
            if not segment.size:
                start = os.pread(fd, len(SEGMENT_HEADER), 0)
                if start != SEGMENT_HEADER:
                    if finished or len(start) == len(SEGMENT_HEADER):
                        raise ForeignVersion(f"{segment.name} has a format that this version does not know: {start!r}")
                    return False
                segment.size = len(SEGMENT_HEADER)
            stop = min(end, segment.size + _LOOK_BYTES)
            before = segment.size
            for found in scan(fd, segment.size, stop, max(self.next, segment.first), FORM):
                if isinstance(found, Record):
                    segment.size, self.next = found.stop, found.number + 1
                    if found.kind == ROW:
                        self.last_row = found.number
            if stop < end:
                if segment.size == before:  # nothing whole in all of it: damage
                    segment.size = stop
                return True
            if finished:  # what is left at its end is damage, which the reader sets aside
                segment.size = end
                segment.rows = 0
            return False
        finally:
            os.close(fd)
