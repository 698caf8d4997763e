"""The index of args_summary: which rows have which three characters in a row (trigrams).

A zone is indexed as a whole, once it is full, and its rows are never looked at again. What is not in a zone that is
indexed is looked at row by row.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import apsw

from audit_svc.sqlite.open.connection import transaction
from audit_svc.sqlite.text import text_rows
from audit_svc.sqlite.text.text_rows import unpack
from audit_svc.sqlite.text.text_segments import Segment, add_segment, remove_segment, rows_with, tidy, write_entries
from audit_svc.sqlite.text.text_trigrams import Entry, Trigrams

_SEGMENT_OF = (
    "SELECT segment, zone FROM args_index_segments "
    "WHERE zone <= :zone AND zone + zones > :zone AND earliest <= :earliest AND latest >= :latest"
)


def first_unindexed(connection: apsw.Connection) -> int:
    """The row number from which on rows are looked at one by one."""
    ((zone,),) = connection.execute("SELECT coalesce(max(zone) + 1, 0) FROM args_index_zones")
    return int(zone) * text_rows.ZONE_ROWS


def unindexed_rows(connection: apsw.Connection, _: object = None) -> int:
    """How many row numbers there are from which no zone is made yet; less than a zone has when all that can be is."""
    ((first, last),) = connection.execute(
        "SELECT (SELECT min(rowid) FROM tool_call_log), max(rowid) FROM tool_call_log"
    )
    return 0 if last is None else max(0, int(last) + 1 - max(int(first), first_unindexed(connection)))


def index_zones(connection: apsw.Connection) -> Iterator[None]:
    """Indexes all zones that are full, in steps of some milliseconds.

    The connection may do other things between two steps. When they are not gone on with, the next begins what was not
    ended again.
    """
    yield from tidy(connection)
    ((first,),) = connection.execute("SELECT min(rowid) FROM tool_call_log")
    zone = max(first_unindexed(connection), int(first or 0)) // text_rows.ZONE_ROWS
    if not _is_full(connection, zone):
        return
    with closing(Trigrams()) as trigrams:
        while _is_full(connection, zone):
            number, entries = yield from write_entries(connection, trigrams.of_zone(connection, zone))
            if trigrams.times:
                with transaction(connection):
                    add_segment(connection, Segment(number, zone, 1, *trigrams.times), entries)
                    connection.execute("INSERT INTO args_index_zones VALUES (?, ?, ?)", (zone, *trigrams.times))
                yield
            yield from tidy(connection)
            zone += 1


def remove_zones(connection: apsw.Connection, before_ms: int) -> bool:
    """Removes zones whose calls all began before before_ms, some entries at once; False when all have gone.

    In the transaction that is open.
    """
    connection.execute("DELETE FROM args_index_zones WHERE latest < ?", (before_ms,))
    return remove_segment(connection)


def rebuild_text_index(connection: apsw.Connection) -> Iterator[None]:
    """Makes the index again from the rows, in steps as index_zones()."""
    with transaction(connection):
        connection.execute("DELETE FROM args_index_zones")
        connection.execute("DELETE FROM args_index_segments")
        connection.execute("DELETE FROM args_index")
    yield from index_zones(connection)


def text_index_differences(connection: apsw.Connection) -> Iterator[bool]:
    """Of each zone that is indexed, whether the index lacks something that its rows have."""
    with closing(Trigrams()) as trigrams:
        zones: list[Any] = connection.execute("SELECT zone, earliest, latest FROM args_index_zones").fetchall()
        for zone, earliest, latest in zones:
            times = {"zone": zone, "earliest": earliest, "latest": latest}
            lacks = (segment := connection.execute(_SEGMENT_OF, times).fetchone()) is None
            for entries in trigrams.of_zone(connection, zone):
                lacks = lacks or not all(_has(connection, segment, zone, entry) for entry in entries)
            # It may have more, of rows that are gone.
            if trigrams.times:
                lacks |= not earliest <= trigrams.times[0] <= trigrams.times[1] <= latest
            yield lacks


def _has(connection: apsw.Connection, segment: Any, zone: int, entry: Entry) -> bool:
    """Whether the index has an entry of a zone. segment: the number and the first zone of the one it is in."""
    number, first = segment
    trigram, packed = entry
    try:
        return unpack(packed).shift((zone - first) * text_rows.ZONE_ROWS) <= rows_with(connection, number, trigram)
    except apsw.CorruptError:
        return False


def _is_full(connection: apsw.Connection, zone: int) -> bool:
    """Whether a row has come after it: the last row stays when all are pruned, and must not be in a zone that goes."""
    ((last,),) = connection.execute("SELECT max(rowid) FROM tool_call_log")
    return last is not None and int(last) >= (zone + 1) * text_rows.ZONE_ROWS
