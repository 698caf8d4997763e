"""The trigrams, three characters in a row, of the rows of a zone and of a text that is looked for."""

import itertools
from collections.abc import Iterator
from typing import Any

import apsw

from audit_svc.store import text_blocks
from audit_svc.store.text_blocks import pack, zone_rows
from audit_svc.store.transactions import transaction

SHORTEST = 3
"""Characters of the shortest text that has a trigram."""

BLOCKS_A_STEP = 32
CHARACTERS_A_STEP = 100_000
BYTES_A_STEP = 16_000
"""With these a step takes one to five milliseconds."""

ENTRY_BYTES = 20
"""What an entry takes beside its blocks, about."""

_UNSURE = "\0\ufffd\ufffe\uffff"
"""What SQLite ends a text at, and what it does not tell apart."""

_BLOCKS = (
    "SELECT (rowid - :first) / :size, lower(group_concat(DISTINCT args_summary)), min(created_at), max(created_at) "
    "FROM tool_call_log NOT INDEXED WHERE rowid >= :first + :begin * :size AND rowid < :first + :end * :size GROUP BY 1"
)

Entry = tuple[str, int, bytes]
"""A trigram, the first of some zones, and their blocks that have it, packed."""


def text_trigrams(text: str) -> list[str]:
    """The trigrams that a row with text in its args_summary has; none when the index says nothing of such rows.

    LIKE takes ASCII letters of both cases as one, and others apart.
    """
    if "\0" in text:
        return []
    text = text.encode().lower().decode()
    found = dict.fromkeys(text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1))
    return [trigram for trigram in found if not set(trigram) & set(_UNSURE)]


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
        for begin in range(0, text_blocks.ZONE_BLOCKS, BLOCKS_A_STEP):
            place = {"first": zone * zone_rows(), "size": text_blocks.BLOCK_ROWS}
            found: list[Any] = connection.execute(
                _BLOCKS, {**place, "begin": begin, "end": begin + BLOCKS_A_STEP}
            ).fetchall()
            times += [time for row in found for time in row[2:]]
            while found:
                found = self._add(found)
                yield []
        entries: list[Entry] = []
        size = 0
        for trigram, blocks in self._read():
            entries.append((trigram, zone, blocks))
            size += ENTRY_BYTES + len(blocks)
            if size >= BYTES_A_STEP:
                yield entries
                entries, size = [], 0
        self._clear()
        self.times = (min(times), max(times)) if times else None
        yield entries

    def close(self) -> None:
        self._memory.close()

    def _add(self, blocks: list[Any]) -> list[Any]:
        """Adds the texts of blocks, in their order, until it is enough for a step; returns those that are left."""
        sizes = itertools.accumulate(len(text) for _, text, *_ in blocks)
        count = 1 + sum(size < CHARACTERS_A_STEP for size in sizes)
        with transaction(self._memory):
            self._memory.executemany(
                "INSERT INTO texts (rowid, summary) VALUES (?, ?)",
                (row[:2] for row in blocks[:count]),
            )
        return blocks[count:]

    def _read(self) -> Iterator[tuple[str, bytes]]:
        """The trigrams of what was added, each with its blocks."""
        found = self._memory.execute("SELECT term, group_concat(char(doc), '') FROM trigrams GROUP BY term")
        for trigram, blocks in found:
            yield str(trigram), pack([ord(block) for block in str(blocks)], 1)

    def _clear(self) -> None:
        """Forgets what was added."""
        self._memory.execute("INSERT INTO texts (texts) VALUES ('delete-all')")
