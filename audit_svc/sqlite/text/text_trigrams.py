"""The trigrams, three characters in a row, of the rows of a zone and of a text that is looked for."""

import itertools
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import apsw
from pyroaring import BitMap

from audit_svc.sqlite.open.connection import transaction
from audit_svc.sqlite.text import text_rows
from audit_svc.sqlite.text.text_rows import pack

SHORTEST = 3
"""Characters of the shortest text that has a trigram."""

TEXTS_A_STEP = 256
CHARACTERS_A_STEP = 100_000
ROWS_A_STEP = 20_000
"""With these a step takes one to five milliseconds."""

ENTRY_BYTES = 20
"""What an entry takes beside its rows, about."""

_UNSURE = "\0\ufffd\ufffe\uffff"
"""What SQLite ends a text at, and what it does not tell apart."""

_CODE_POINTS = f"utf-32-{sys.byteorder[0]}e"

_ROWS = (
    "SELECT rowid - :first, lower(args_summary), created_at FROM tool_call_log NOT INDEXED "
    "WHERE rowid >= :first + :begin AND rowid < :first + :end"
)

Entry = tuple[str, bytes]
"""A trigram and the rows that have it, packed."""


def text_trigrams(text: str) -> list[str]:
    """The trigrams that a row with text in its args_summary has; none when the index says nothing of such rows.

    LIKE takes ASCII letters of both cases as one, and others apart.
    """
    if "\0" in text:
        return []
    text = text.encode().lower().decode()
    found = dict.fromkeys(text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1))
    return [trigram for trigram in found if not set(trigram) & set(_UNSURE)]


def in_steps(sets: Iterable[tuple[str, BitMap]]) -> Iterator[list[Entry]]:
    """Trigrams and their rows as entries in the same order, as many at once as make a step; at the end maybe none."""
    entries: list[Entry] = []
    size = 0
    for trigram, rows in sets:
        size += len(rows) + ENTRY_BYTES
        entries.append((trigram, pack(rows)))
        if size >= ROWS_A_STEP:
            yield entries
            entries, size = [], 0
    yield entries


class Trigrams:
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
        self.times: tuple[int, int] | None = None
        """Between which the calls of the zone began that was gone through last; None when it has none."""

    def of_zone(self, connection: apsw.Connection, zone: int) -> Iterator[list[Entry]]:
        """The entries of a zone in their order, in steps, some of which have none."""
        times: list[int] = []
        for begin in range(0, text_rows.ZONE_ROWS, TEXTS_A_STEP):
            place = {"first": zone * text_rows.ZONE_ROWS, "begin": begin, "end": begin + TEXTS_A_STEP}
            found: list[Any] = connection.execute(_ROWS, place).fetchall()
            times += [row[2] for row in found]
            while found:
                found = self._add(found)
                yield []
        yield from in_steps(self._read())
        self._clear()
        self.times = (min(times), max(times)) if times else None

    def close(self) -> None:
        self._memory.close()

    def _add(self, rows: list[Any]) -> list[Any]:
        """Adds the texts of rows, in their order, until it is enough for a step; returns those that are left."""
        sizes = itertools.accumulate(len(text) for _, text, _ in rows)
        count = 1 + sum(size < CHARACTERS_A_STEP for size in sizes)
        with transaction(self._memory):
            self._memory.executemany(
                "INSERT INTO texts (rowid, summary) VALUES (?, ?)", (row[:2] for row in rows[:count])
            )
        return rows[count:]

    def _read(self) -> Iterator[tuple[str, BitMap]]:
        """The trigrams of what was added, each with its rows."""
        found: Iterable[Any] = self._memory.execute(
            "SELECT term, group_concat(char(doc), '') FROM trigrams GROUP BY term"
        )
        for trigram, rows in found:
            # A character stands for a row: what SQLite has gathered so is turned into numbers at once.
            yield trigram, BitMap(array("I", rows.encode(_CODE_POINTS)))

    def _clear(self) -> None:
        """Forgets what was added."""
        self._memory.execute("INSERT INTO texts (texts) VALUES ('delete-all')")
