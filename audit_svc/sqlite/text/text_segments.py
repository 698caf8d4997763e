"""Segments of the index of texts: runs of zones whose entries lie together, so that few look-ups find them.

A zone begins as a segment of its own. Neighbours become a larger one, whose entries are written anew at the right end
of the table, as in a log-structured merge tree. What is written means nothing until the segment counts, and nothing
once it counts no more: a process that ends in the middle leaves nothing but entries to remove.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import apsw
from pyroaring import BitMap

from audit_svc.sqlite.open.connection import transaction
from audit_svc.sqlite.text import text_rows
from audit_svc.sqlite.text.text_rows import unpack
from audit_svc.sqlite.text.text_trigrams import ENTRY_BYTES, Entry, in_steps

SIZES = (1, 4, 64)
"""Zones of a segment. A larger one begins where its size divides the number of its first zone."""

ENTRIES_A_STEP = 256
ENTRIES_A_REMOVAL = 1536
BYTES_A_REMOVAL = 2_000_000
ENTRIES_A_COMMIT = 2048
BYTES_A_COMMIT = 300_000
"""With these a step takes one to five milliseconds."""

ROWS = "SELECT rows FROM args_index WHERE segment = ? AND trigram = ?"
_INSERT = "INSERT INTO args_index (segment, trigram, rows) VALUES (?, ?, ?)"
_NEXT = (
    "SELECT 1 + max(coalesce((SELECT max(segment) FROM args_index), -1), coalesce(max(segment), -1)) "
    "FROM args_index_segments"
)
_RUN = (
    "SELECT zone / :zones * :zones FROM args_index_segments WHERE zones < :zones GROUP BY 1 "
    "HAVING count(*) > 1 AND zone / :zones * :zones + :zones <= (SELECT max(zone) + 1 FROM args_index_zones) LIMIT 1"
)
_PARTS = (
    "SELECT segment, zone, zones, earliest, latest FROM args_index_segments WHERE zone >= ? AND zone < ? ORDER BY zone"
)
_ENTRIES = "SELECT trigram, rows FROM args_index WHERE segment = ? AND trigram >= ? ORDER BY trigram LIMIT ?"
_FIRST_ENTRIES = (
    "SELECT max(trigram) FROM (SELECT trigram, sum(bytes) OVER (ORDER BY trigram) - bytes AS before FROM "
    "(SELECT trigram, length(rows) AS bytes FROM args_index WHERE segment = :segment ORDER BY trigram LIMIT :entries)) "
    "WHERE before < :bytes"
)
_LEFT_OVER = (
    "WITH RECURSIVE every (segment) AS (SELECT min(segment) FROM args_index UNION ALL "
    "SELECT (SELECT min(segment) FROM args_index WHERE segment > every.segment) FROM every WHERE segment IS NOT NULL) "
    "SELECT segment FROM every WHERE segment IS NOT NULL "
    "AND segment NOT IN (SELECT segment FROM args_index_segments) LIMIT 1"
)
_EMPTY = (
    "SELECT segment FROM args_index_segments s WHERE NOT EXISTS "
    "(SELECT 1 FROM args_index_zones z WHERE z.zone >= s.zone AND z.zone < s.zone + s.zones) LIMIT 1"
)


class Segment(NamedTuple):
    """Some zones, by the number of the first, and times between which their calls began."""

    number: int
    zone: int
    zones: int
    earliest: int
    latest: int


def rows_with(connection: apsw.Connection, segment: int, trigram: str) -> BitMap:
    """The rows of a segment that have a trigram.

    Raises:
        apsw.CorruptError: the entry is damaged.
    """
    entry: Any = connection.execute(ROWS, (segment, trigram)).fetchone()
    return BitMap() if entry is None else unpack(entry[0])


def write_entries(
    connection: apsw.Connection, steps: Iterable[list[Entry]]
) -> Generator[None, None, tuple[int, list[Entry]]]:
    """Writes what steps give, in a transaction once it is enough; returns a new segment's number and what is left."""
    ((number,),) = connection.execute(_NEXT)
    entries: list[Entry] = []
    size = 0
    for more in steps:
        entries += more
        size += sum(len(rows) for _, rows in more) + ENTRY_BYTES * len(more)
        if len(entries) >= ENTRIES_A_COMMIT or size >= BYTES_A_COMMIT:
            with transaction(connection):
                _insert(connection, int(number), entries)
            entries, size = [], 0
        yield
    return int(number), entries


def add_segment(connection: apsw.Connection, segment: Segment, entries: Iterable[Entry]) -> None:
    """Has a segment count whose last entries are these, in the transaction that is open."""
    _insert(connection, segment.number, entries)
    connection.execute("INSERT INTO args_index_segments VALUES (?, ?, ?, ?, ?)", segment)


def tidy(connection: apsw.Connection) -> Iterator[None]:
    """Makes large segments of small ones and removes entries that mean nothing, in steps of some milliseconds."""
    while parts := _next_run(connection):
        yield from _merge(connection, *parts)
    yield from _remove_left_overs(connection)


def is_tidy(connection: apsw.Connection) -> bool:
    """Whether there is nothing to make larger or to remove, and nothing in the making."""
    return _next_run(connection) is None and connection.execute(_LEFT_OVER).fetchone() is None


def remove_segment(connection: apsw.Connection) -> bool:
    """Removes some entries of a segment that has no zones any more, in the transaction that is open; False if none."""
    found = connection.execute(_EMPTY).fetchone()
    if found is not None and not _remove_entries(connection, int(found[0])):
        connection.execute("DELETE FROM args_index_segments WHERE segment = ?", found)
    return found is not None


def _insert(connection: apsw.Connection, segment: int, entries: Iterable[Entry]) -> None:
    connection.executemany(_INSERT, ((segment, *entry) for entry in entries))


def _remove_left_overs(connection: apsw.Connection) -> Iterator[None]:
    while found := connection.execute(_LEFT_OVER).fetchone():
        with transaction(connection):
            _remove_entries(connection, int(found[0]))
        yield


def _remove_entries(connection: apsw.Connection, segment: int) -> bool:
    """Removes the first entries of a segment; False when it has none."""
    some = {"segment": segment, "entries": ENTRIES_A_REMOVAL, "bytes": BYTES_A_REMOVAL}
    ((last,),) = connection.execute(_FIRST_ENTRIES, some)
    connection.execute("DELETE FROM args_index WHERE segment = ? AND trigram <= ?", (segment, last))
    return last is not None


def _next_run(connection: apsw.Connection) -> tuple[list[Segment], int] | None:
    """Segments that one can be made of, and of how many zones it will be."""
    for zones in SIZES[1:]:
        found = connection.execute(_RUN, {"zones": zones}).fetchone()
        if found is not None:
            parts: list[Any] = connection.execute(_PARTS, (found[0], int(found[0]) + zones)).fetchall()
            return [Segment(*part) for part in parts], zones
    return None


def _merge(connection: apsw.Connection, parts: list[Segment], zones: int) -> Iterator[None]:
    first = parts[0].zone // zones * zones
    number, entries = yield from write_entries(connection, _merged(connection, parts, first))
    times = min(part.earliest for part in parts), max(part.latest for part in parts)
    with transaction(connection):
        connection.executemany("DELETE FROM args_index_segments WHERE segment = ?", [(part.number,) for part in parts])
        add_segment(connection, Segment(number, first, zones, *times), entries)
    yield


def _merged(connection: apsw.Connection, parts: list[Segment], first_zone: int) -> Iterator[list[Entry]]:
    """The entries of parts in their order as those of one segment that begins with first_zone, in steps."""
    begin: str | None = ""
    limit = 2 + ENTRIES_A_STEP // len(parts)
    while begin is not None:
        found: list[tuple[Segment, list[Any]]] = [
            (part, connection.execute(_ENTRIES, (part.number, begin, limit)).fetchall()) for part in parts
        ]
        # What the part with the nearest end has not shown yet comes next.
        end = min((rows[-1][0] for _, rows in found if len(rows) == limit), default=None)
        sets: dict[str, list[BitMap]] = {}
        for part, entries in found:
            offset = (part.zone - first_zone) * text_rows.ZONE_ROWS
            for trigram, packed in entries:
                if end is not None and trigram >= end:
                    break
                sets.setdefault(trigram, []).append(unpack(packed).shift(offset))
        yield from in_steps((trigram, BitMap.union(*rows)) for trigram, rows in sorted(sets.items()))
        begin = end
