"""The index of args_summary: which blocks of rows have which three characters in a row (trigrams).

Rows never change and row numbers only grow, so BLOCK_ROWS numbers are a block for ever, and ZONE_BLOCKS blocks a zone.
A zone is indexed as a whole, once it is full, and never touched again before it goes as a whole. What is not in a zone
that is indexed is looked at row by row.
"""

import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import apsw

from audit_svc.store.transactions import transaction

BLOCK_ROWS = 16
ZONE_BLOCKS = 1024

SHORTEST = 3
"""Characters of the shortest text that has a trigram."""

BLOCKS_A_STEP = 16
CHARACTERS_A_STEP = 100_000
BYTES_A_STEP = 20_000
ENTRIES_A_COMMIT = 2048
"""With these a step takes one to five milliseconds."""

ENTRY_BYTES = 20
"""What an entry takes beside its blocks, about."""

_BITS = [1 << block for block in range(ZONE_BLOCKS)]

_UNSURE = "\0\ufffd\ufffe\uffff"
"""What SQLite ends a text at, and what it does not tell apart."""

_BLOCKS = (
    "SELECT (rowid - :first) / :size, lower(group_concat(DISTINCT args_summary)), min(created_at), max(created_at) "
    "FROM tool_call_log NOT INDEXED WHERE rowid >= :first + :begin * :size AND rowid < :first + :end * :size GROUP BY 1"
)
_UNFINISHED = "SELECT 1 FROM args_index WHERE zone >= ? LIMIT 1"
_INSERT = "INSERT INTO args_index (zone, trigram, blocks) VALUES (?, ?, ?)"

Entry = tuple[int, str, bytes]
"""A zone, a trigram, and the blocks of the zone that have it, packed."""


def zone_rows() -> int:
    """Row numbers of a zone."""
    return BLOCK_ROWS * ZONE_BLOCKS


def pack(blocks: str) -> bytes:
    """The code points of blocks, which are numbers below ZONE_BLOCKS, in the shorter of two forms.

    Few are written one by one, in 16 bits each; many as a bit for each block that there is.
    """
    if 16 * len(blocks) < ZONE_BLOCKS:
        return blocks.encode("utf-16-le")
    return _mask(blocks).to_bytes(ZONE_BLOCKS // 8, "little")


def unpack(packed: bytes) -> int:
    """What pack() has packed, as a number with a bit for each block."""
    if 8 * len(packed) < ZONE_BLOCKS:
        return _mask(packed.decode("utf-16-le"))
    return int.from_bytes(packed, "little")


def text_trigrams(text: str) -> list[str]:
    """The trigrams that a row with text in its args_summary has; none when the index says nothing of such rows.

    LIKE takes ASCII letters of both cases as one, and others apart.
    """
    if "\0" in text:
        return []
    text = text.encode().lower().decode()
    found = dict.fromkeys(text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1))
    return [trigram for trigram in found if not set(trigram) & set(_UNSURE)]


def first_unindexed(connection: apsw.Connection) -> int:
    """The row number from which on rows are looked at one by one."""
    ((zone,),) = connection.execute("SELECT coalesce(max(zone) + 1, 0) FROM args_index_zones")
    return int(zone) * zone_rows()


def unindexed_rows(connection: apsw.Connection, _: object = None) -> int:
    """How many row numbers there are from which no zone is made yet; less than a zone has when all that can be is."""
    ((first, last),) = connection.execute(
        "SELECT (SELECT min(rowid) FROM tool_call_log), max(rowid) FROM tool_call_log"
    )
    return 0 if last is None else max(0, int(last) + 1 - max(int(first), first_unindexed(connection)))


def index_zones(connection: apsw.Connection) -> Iterator[int]:
    """Indexes all zones that are full, in steps of some milliseconds; gives after each the number of the zone.

    The connection may do other things between two steps. What a zone's steps have written has no meaning until the
    last of them: when they are not gone on with, the next begins the zone again.
    """
    ((first,),) = connection.execute("SELECT min(rowid) FROM tool_call_log")
    begin = first_unindexed(connection)
    if connection.execute(_UNFINISHED, (begin // zone_rows(),)).fetchone():
        with transaction(connection):
            connection.execute("DELETE FROM args_index WHERE zone >= ?", (begin // zone_rows(),))
    zone = max(begin, int(first or 0)) // zone_rows()
    if not _is_full(connection, zone):
        return
    with closing(_Trigrams()) as trigrams:
        while _is_full(connection, zone):
            for entries, times in _zone(connection, trigrams, zone):
                if entries or times:
                    with transaction(connection):
                        connection.executemany(_INSERT, entries)
                        if times:
                            connection.execute("INSERT INTO args_index_zones VALUES (?, ?, ?)", (zone, *times))
                yield zone
            zone += 1


def remove_zone(connection: apsw.Connection, before_ms: int) -> bool:
    """Removes a zone whose calls all began before before_ms, in the transaction that is open; says whether one was."""
    found = connection.execute(
        "SELECT zone FROM args_index_zones WHERE latest < ? ORDER BY latest LIMIT 1", (before_ms,)
    ).fetchone()
    if found is not None:
        connection.execute("DELETE FROM args_index WHERE zone = ?", found)
        connection.execute("DELETE FROM args_index_zones WHERE zone = ?", found)
    return found is not None


def rebuild_text_index(connection: apsw.Connection) -> Iterator[int]:
    """Makes the index again from the rows, in steps as index_zones()."""
    with transaction(connection):
        connection.execute("DELETE FROM args_index_zones")
        connection.execute("DELETE FROM args_index")
    yield from index_zones(connection)


def text_index_differences(connection: apsw.Connection) -> Iterator[bool]:
    """Of each zone that is indexed, whether the index lacks something that its rows have."""
    with closing(_Trigrams()) as trigrams:
        zones: list[Any] = connection.execute("SELECT zone, earliest, latest FROM args_index_zones").fetchall()
        for zone, earliest, latest in zones:
            found = connection.execute("SELECT trigram, blocks FROM args_index WHERE zone = ?", (zone,))
            stored = {trigram: unpack(blocks) for trigram, blocks in found}
            lacks = False
            for entries, times in _zone(connection, trigrams, zone):
                # It may have more, of rows that are gone.
                lacks |= any(unpack(blocks) & ~stored.get(trigram, 0) for _, trigram, blocks in entries)
                lacks |= times is not None and not earliest <= times[0] <= times[1] <= latest
            yield lacks


def _mask(blocks: str) -> int:
    return sum(map(_BITS.__getitem__, map(ord, blocks)))


def _is_full(connection: apsw.Connection, zone: int) -> bool:
    """Whether a row has come after it: the last row stays when all are pruned, and must not be in a zone that goes."""
    ((last,),) = connection.execute("SELECT max(rowid) FROM tool_call_log")
    return last is not None and int(last) >= (zone + 1) * zone_rows()


def _zone(
    connection: apsw.Connection, trigrams: "_Trigrams", zone: int
) -> Iterator[tuple[list[Entry], tuple[int, int] | None]]:
    """What the index says of a zone, in steps, some of which have nothing yet; the last has the zone's times too."""
    times: list[int] = []
    for begin in range(0, ZONE_BLOCKS, BLOCKS_A_STEP):
        place = {"first": zone * zone_rows(), "size": BLOCK_ROWS, "begin": begin, "end": begin + BLOCKS_A_STEP}
        found: list[Any] = connection.execute(_BLOCKS, place).fetchall()
        times += [time for row in found for time in row[2:]]
        while found:
            found = trigrams.add(found)
            yield [], None
    entries: list[Entry] = []
    size = 0
    for trigram, blocks in trigrams.read():
        entries.append((zone, trigram, blocks))
        size += ENTRY_BYTES + len(blocks)
        if len(entries) == ENTRIES_A_COMMIT:
            yield entries, None
            entries, size = [], 0
        elif size >= BYTES_A_STEP:
            yield [], None
            size = 0
    trigrams.clear()
    if times:
        yield entries, (min(times), max(times))


class _Trigrams:
    """Finds trigrams in texts by SQLite's own tokenizer, in memory, outside of Python's lock."""

    def __init__(self) -> None:
        self._memory = apsw.Connection(":memory:")
        self._memory.execute(
            "CREATE VIRTUAL TABLE texts USING fts5 "
            "(summary, content = '', detail = none, columnsize = 0, tokenize = 'trigram case_sensitive 1');"
            "CREATE VIRTUAL TABLE trigrams USING fts5vocab (texts, instance);"
            # Merging takes long at once, and saves nothing in what is read once.
            "INSERT INTO texts (texts, rank) VALUES ('automerge', 0);"
            "INSERT INTO texts (texts, rank) VALUES ('crisismerge', 1000);"
        )

    def add(self, blocks: list[Any]) -> list[Any]:
        """Adds the texts of blocks, in their order, until it is enough for a step; returns those that are left."""
        sizes = itertools.accumulate(len(text) for _, text, *_ in blocks)
        count = 1 + sum(size < CHARACTERS_A_STEP for size in sizes)
        with transaction(self._memory):
            self._memory.executemany(
                "INSERT INTO texts (rowid, summary) VALUES (?, ?)",
                (row[:2] for row in blocks[:count]),
            )
        return blocks[count:]

    def read(self) -> Iterator[tuple[str, bytes]]:
        """The trigrams of what was added, each with its blocks."""
        found = self._memory.execute("SELECT term, group_concat(char(doc), '') FROM trigrams GROUP BY term")
        for trigram, blocks in found:
            yield str(trigram), pack(str(blocks))

    def clear(self) -> None:
        """Forgets what was added."""
        self._memory.execute("INSERT INTO texts (texts) VALUES ('delete-all')")

    def close(self) -> None:
        self._memory.close()
