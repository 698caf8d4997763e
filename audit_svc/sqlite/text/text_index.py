"""The index of args_summary: an FTS5 table of trigrams, filled after the rows in steps of some milliseconds.

args_index (migration 0011) keeps no text. Beside its trigrams each row has a mark of its zone, ZONE_ROWS row numbers,
so that a search looks at one zone at a time: FTS5 ends where the mark does, and not before. args_index_zones has the
times between which the calls of a zone began.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import apsw

from audit_svc.sqlite.open.connection import transaction

ZONE_ROWS = 262_144
SHORTEST = 3
"""Characters of the shortest text that has a trigram."""

ROWS_A_STEP = 256
CHARACTERS_A_STEP = 20_000
PAGES_A_STEP = 8
"""With these a step takes one to five milliseconds."""
MERGED_PAGES = 64
"""Of a step of merge_all(): some 20 ms."""

_MARKS = 0xF0000, 0xFFFE
"""The first character of a plane for private use, and how many there are; marks of later zones begin again."""

_LAST = "SELECT rowid FROM args_index ORDER BY rowid DESC LIMIT 1"
_NEXT_ROWS = (
    "SELECT max(number) FROM (SELECT number, sum(size) OVER (ORDER BY number) - size AS before FROM "
    "(SELECT rowid AS number, length(args_summary) AS size FROM tool_call_log NOT INDEXED "
    "WHERE rowid >= ? ORDER BY rowid LIMIT ?)) WHERE before < ?"
)
_ADD_ROWS = (
    "INSERT INTO args_index (rowid, args_summary, zone) "
    "SELECT rowid, args_summary, {mark} FROM tool_call_log NOT INDEXED WHERE rowid BETWEEN :first AND :last"
)
_ADD_TIMES = (
    "INSERT INTO args_index_zones SELECT rowid / :zone_rows, min(created_at), max(created_at) "
    "FROM tool_call_log NOT INDEXED WHERE rowid BETWEEN :first AND :last GROUP BY 1 ON CONFLICT (zone) DO UPDATE "
    "SET earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)"
)
_MERGE = "INSERT INTO args_index (args_index, rank) VALUES ('merge', ?)"
_REMOVE_TIMES = (
    "DELETE FROM args_index_zones WHERE latest < :before AND NOT EXISTS (SELECT 1 FROM tool_call_log NOT INDEXED "
    "WHERE tool_call_log.rowid >= zone * :zone_rows AND tool_call_log.rowid < (zone + 1) * :zone_rows)"
)


def trigrams_of(text: str) -> list[str]:
    """The trigrams, three characters in a row, that a row with text in its args_summary has in the index."""
    # FTS5 passes over NULs.
    found = dict.fromkeys(text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1))
    return [trigram for trigram in found if "\0" not in trigram]


def match(trigrams: Sequence[str], zone: int) -> str:
    """What FTS5 is asked for rows of a zone that have all trigrams."""
    terms = [*trigrams, _mark(zone)]
    return " AND ".join('"{}"'.format(term.replace('"', '""')) for term in terms)


def first_unindexed(connection: apsw.Connection) -> int:
    """The row number from which on rows are looked at one by one."""
    ((last,),) = connection.execute(f"SELECT ({_LAST})")
    return 0 if last is None else int(last) + 1


def unindexed_rows(connection: apsw.Connection, _: object = None) -> int:
    """How many row numbers there are that the index does not have yet; 0 when it has all rows."""
    ((first, last),) = connection.execute(
        "SELECT (SELECT min(rowid) FROM tool_call_log), max(rowid) FROM tool_call_log"
    )
    return 0 if last is None else max(0, int(last) + 1 - max(int(first), first_unindexed(connection)))


def index_rows(connection: apsw.Connection) -> Iterator[None]:
    """Indexes all rows, and merges what was written before, in steps of some milliseconds.

    The connection may do other things between two steps.
    """
    yield from _merge(connection)
    while _index_some(connection):
        yield
        yield from _merge(connection)


def forget_rows(connection: apsw.Connection, rows: Sequence[tuple[int, str]]) -> None:
    """Takes rows that were removed, by number and args_summary, out of the index, in the transaction that is open."""
    first = first_unindexed(connection)
    # FTS5 keeps no text, and is told what it had. Its option contentless_delete is not known to the SQLite of older
    # Pythons, which read the ledger too (`audit-svc ui`).
    connection.executemany(
        "INSERT INTO args_index (args_index, rowid, args_summary, zone) VALUES ('delete', ?, ?, ?)",
        [(number, text, _mark(number // ZONE_ROWS)) for number, text in rows if number < first],
    )


def replace_texts(connection: apsw.Connection, rows: Sequence[tuple[int, str]], text: str) -> None:
    """Has the index forget what rows had, by number and args_summary, and have text in its place, in the transaction
    that is open.

    FTS5 keeps what it had until merge_all(). Its option secure-delete, which would not, takes 30 ms a row, and lets
    SQLite 3.42 and later alone read the index.
    """
    rows = sorted(rows)
    first = first_unindexed(connection)
    forget_rows(connection, rows)
    connection.executemany(
        "INSERT INTO args_index (rowid, args_summary, zone) VALUES (?, ?, ?)",
        [(number, text, _mark(number // ZONE_ROWS)) for number, _ in rows if number < first],
    )


def merge_all(connection: apsw.Connection, *, begin: bool) -> bool:
    """Merges a part of all that the index has, so that nothing of forgotten rows stays; whether there is more to merge.

    begin: with all that there is now; without, it goes on. In the open transaction.
    """
    before = connection.total_changes()
    # Source: https://sqlite.org/fts5.html#the_merge_command
    connection.execute(_MERGE, (-MERGED_PAGES if begin else MERGED_PAGES,))
    return connection.total_changes() - before >= 2


def forget_zones(connection: apsw.Connection, before_ms: int) -> None:
    """Forgets the zones whose rows are all gone and began before before_ms, in the transaction that is open."""
    connection.execute(_REMOVE_TIMES, {"before": before_ms, "zone_rows": ZONE_ROWS})


def rebuild_text_index(connection: apsw.Connection) -> Iterator[None]:
    """Makes the index again from the rows, in steps as index_rows()."""
    with transaction(connection):
        connection.execute("INSERT INTO args_index (args_index) VALUES ('delete-all')")
        connection.execute("DELETE FROM args_index_zones")
    yield from index_rows(connection)


def text_index_differences(connection: apsw.Connection) -> Iterator[bool]:
    """Of each zone that has rows, whether the index or the zone's times lack something that its rows have."""
    ((first, last),) = connection.execute("SELECT min(rowid), max(rowid) FROM tool_call_log")
    try:
        last = min(last or 0, first_unindexed(connection) - 1)
    except apsw.CorruptError:
        yield True
        return
    for zone in range(int(first or 0) // ZONE_ROWS, last // ZONE_ROWS + 1):
        try:
            yield _lacks(connection, zone, last)
        except apsw.CorruptError:
            yield True


def _mark(zone: int) -> str:
    first, count = _MARKS
    return SHORTEST * chr(first + zone % count)


def _mark_sql() -> str:
    first, count = _MARKS
    character = f"{first} + rowid / {ZONE_ROWS} % {count}"
    return f"char({', '.join([character] * SHORTEST)})"


def _index_some(connection: apsw.Connection) -> bool:
    first = first_unindexed(connection)
    ((last,),) = connection.execute(_NEXT_ROWS, (first, ROWS_A_STEP, CHARACTERS_A_STEP))
    if last is None:
        return False
    rows = {"first": first, "last": last}
    with transaction(connection):
        connection.execute(_ADD_ROWS.format(mark=_mark_sql()), rows)
        connection.execute(_ADD_TIMES, {**rows, "zone_rows": ZONE_ROWS})
    return True


def _merge(connection: apsw.Connection) -> Iterator[None]:
    """Merges what FTS5 has in many places, and drops what it has of rows that are gone."""
    while True:
        before = connection.total_changes()
        with transaction(connection):
            connection.execute(_MERGE, (PAGES_A_STEP,))
        # Source: https://sqlite.org/fts5.html#the_merge_command
        if connection.total_changes() - before < 2:
            return
        yield


def _lacks(connection: apsw.Connection, zone: int, last: int) -> bool:
    rows = {"first": zone * ZONE_ROWS, "last": min(last, (zone + 1) * ZONE_ROWS - 1)}
    ((earliest, latest),) = connection.execute(
        "SELECT min(created_at), max(created_at) FROM tool_call_log NOT INDEXED WHERE rowid BETWEEN :first AND :last",
        rows,
    )
    if earliest is None:
        return False
    known: Any = connection.execute("SELECT earliest, latest FROM args_index_zones WHERE zone = ?", (zone,)).fetchone()
    if known is None or not known[0] <= earliest <= latest <= known[1]:
        return True
    with closing(apsw.Connection(":memory:")) as memory:
        ((sql,),) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'args_index'")
        memory.execute(str(sql))
        memory.execute("CREATE VIRTUAL TABLE trigrams USING fts5vocab (args_index, instance)")
        texts = connection.execute(
            f"SELECT rowid, args_summary, {_mark_sql()} FROM tool_call_log NOT INDEXED "  # noqa: S608 - numbers of ours
            "WHERE rowid BETWEEN :first AND :last",
            rows,
        )
        with memory:
            memory.executemany("INSERT INTO args_index (rowid, args_summary, zone) VALUES (?, ?, ?)", texts)
        wanted = memory.execute("SELECT term, count(*), sum(doc) FROM trigrams GROUP BY term")
        has = "SELECT count(*), sum(rowid) FROM args_index WHERE args_index MATCH ? AND rowid BETWEEN ? AND ?"
        return any(
            connection.execute(has, (match([str(term)], zone), rows["first"], rows["last"])).fetchone()
            != (count, total)
            for term, count, total in wanted
        )
