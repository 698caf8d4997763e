"""Moves the rest of a spool whose folder, or a file in it, was taken away while the process writes to it.

A file that the process has open can be read even if its name is gone, and so can a folder that was moved.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from recording.framing import Record, scan
from recording.spool import segments
from recording.spool.appender import Appender
from recording.spool.intake import Intake
from recording.spool.interrupted import interrupted
from recording.spool.records import FORM, INTENT, ROW, Versioned, decode_row, is_tool_call
from recording.spool.segments import Segment

_ROWS_AT_ONCE = 256


@dataclass(slots=True)
class Salvage:
    """What was found."""

    moved_rows: int = 0
    interrupted_calls: int = 0
    """Intents of earlier runs whose outcomes were not found."""
    lost_rows: int = 0
    """An upper bound for lost rows: intents of earlier runs cannot be distinguished from them."""
    lost_from_ms: int = 0
    """The first lost row was recorded after this time; 0 if nothing is lost."""


def salvage(log: Appender, acked_before: int, to: Intake, *, pair: bool) -> Salvage:
    """Moves the rows from record acked_before on. pair: whether intents of earlier runs still wait for outcomes.

    Nobody may append to the log meanwhile.
    """
    found = Salvage()
    intents: dict[str, Versioned] = {}
    ends = [*(segment.first for segment in log.segments[1:]), log.next]
    for segment, end in zip(log.segments, ends, strict=False):
        rows: list[Versioned] = []
        seen = seen_rows = 0
        for record in _records(log, segment):
            row = Versioned(record.version, record.payload)
            if pair and record.number < log.first_of_run:
                if record.kind == INTENT:
                    intents[decode_row(record.payload).id] = row
                elif is_tool_call(record.payload):
                    intents.pop(decode_row(record.payload).id, None)
            seen_rows += record.kind == ROW
            if record.number < acked_before:
                continue
            seen += 1
            if record.kind == ROW:
                found.moved_rows += 1
                rows.append(row)
                if len(rows) == _ROWS_AT_ONCE:
                    to.append_moved(rows)
                    rows = []
        to.append_moved(rows)
        lost = max(0, end - max(segment.first, acked_before) - seen)
        if segment.rows is not None:
            lost = min(lost, segment.rows - seen_rows)
        if lost:
            found.lost_rows += lost
            found.lost_from_ms = min(found.lost_from_ms or segment.began_ms, segment.began_ms)
    to.append_moved(list(map(interrupted, intents.values())))
    to.note_lost(found.lost_rows, found.lost_from_ms)
    found.interrupted_calls = len(intents)
    return found


def _records(log: Appender, segment: Segment) -> Iterator[Record]:
    try:
        fd = log.open_segment(segment)
    except OSError:
        return
    try:
        for record in scan(fd, segments.first_record(fd), segment.size, segment.first, FORM):
            if isinstance(record, Record):
                yield record
    except OSError:
        return
    finally:
        os.close(fd)
