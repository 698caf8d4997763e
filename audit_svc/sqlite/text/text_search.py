"""Calls whose args_summary has a text, by the index of trigrams.

Zones are gone through by the times of their calls, the newest first, until none can have a newer row than the page's
last. In a zone those rows are read that have the rarest trigrams of the text; whether they have the text is looked at
in the rows themselves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from audit_svc.ledger.valid_rows import Values
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import CALL_COLUMNS, CALL_NAMES, Condition, Statement
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.text import text_index
from service_kit.paging import Position

MAX_TRIGRAMS = 8
"""FTS5 reads all rows of a zone that have a trigram, at some 30 ns each: frequent ones cost most and rule out least."""
TRIGRAMS_SAMPLED = 64
ROWS_SAMPLED = 500
"""Rows in which trigrams are counted before the rarest are chosen."""
FREQUENT = 4
"""A trigram that more than one in so many rows has is left when there are two rarer ones."""
VAIN = 8
"""When more than one in so many rows of a zone has the trigrams, the walk is quicker."""
MAX_UNINDEXED = 200_000
"""Rows that are looked at one by one before the index: beyond this, going by time is quicker."""

_CREATED_AT, _POSITION = CALL_NAMES.index("created_at"), CALL_NAMES.index("position")
_UNINDEXED = f"SELECT {CALL_COLUMNS} FROM tool_call_log NOT INDEXED WHERE rowid >= ?"  # noqa: S608 - names of ours
_INDEXED = (
    f"SELECT {CALL_COLUMNS} FROM (SELECT value AS number FROM json_each(?)) CROSS JOIN tool_call_log NOT INDEXED "  # noqa: S608 - names of ours
    "WHERE rowid = number"
)
_ZONES = "SELECT zone, latest FROM args_index_zones WHERE latest >= ? AND earliest <= ? ORDER BY latest DESC"
_MATCHING = (
    "SELECT count(*), json_group_array(number) "
    "FROM (SELECT rowid AS number FROM args_index WHERE args_index MATCH ? LIMIT ?)"
)


@dataclass
class TextSearch:
    """Looks for the first size rows of the listing for which conditions hold, one of which is that of the text."""

    connection: Connection
    trigrams: list[str]
    """Of the text, at least one."""
    conditions: Sequence[Condition]
    from_ms: int
    size: int
    give_up: float
    """A time by the monotonic clock."""
    _best: list[Values] = field(default_factory=list)
    _rest: Statement = field(default_factory=lambda: Statement("", []))
    """What is asked of all rows, wherever they are."""

    def rows(self, position: Position) -> tuple[list[Values], Position | None]:
        """Those that come after position, and where to go on if it has ended early: else there are no others."""
        # In one moment: rows that are not indexed yet may be, meanwhile.
        with self.connection:
            found = self._rows(position)
        return found  # noqa: RET504 - what apsw says of its blocks does not rule out that they swallow errors

    def _rows(self, position: Position) -> tuple[list[Values], Position | None]:
        if text_index.unindexed_rows(self.connection) > MAX_UNINDEXED:
            return [], position
        # The text is the first condition, which few rows meet, and which lies before the other columns.
        sql, arguments = listing.select("", [*self.conditions, *listing.after_key(position)])
        sql = f"{sql.replace(' WHERE', ' AND', 1)} ORDER BY created_at DESC, position DESC LIMIT {self.size}"
        self._rest = Statement(sql, arguments)
        self._look(_UNINDEXED, text_index.first_unindexed(self.connection))
        trigrams = self._rarest()
        zones: list[Any] = self.connection.execute(_ZONES, (self.from_ms, position[0])).fetchall()
        most = text_index.ZONE_ROWS // VAIN
        for zone, latest in zones:
            if len(self._best) == self.size and int(self._best[-1][_CREATED_AT]) > latest:
                break
            if time.monotonic() > self.give_up:
                return self._until(latest, position)
            ((count, numbers),) = self.connection.execute(_MATCHING, (text_index.match(trigrams, zone), most + 1))
            if int(count) > most:
                return self._until(latest, position)
            if count:
                self._look(_INDEXED, numbers)
        return self._best, None

    def _look(self, rows: str, *where: Any) -> None:
        sql, arguments = self._rest
        if found := self.connection.execute(rows + sql, (*where, *arguments)).fetchall():
            self._best = sorted([*self._best, *found], key=_place, reverse=True)[: self.size]

    def _until(self, latest: int, position: Position) -> tuple[list[Values], Position]:
        """What no further zone can come between, when the next has rows up to latest."""
        sure = [row for row in self._best if int(row[_CREATED_AT]) > latest]
        return sure, min(position, (latest + 1, 0))

    def _rarest(self) -> list[str]:
        """The trigrams that the fewest of the newest rows have."""
        some = self.trigrams[:: -(-len(self.trigrams) // TRIGRAMS_SAMPLED)]
        if len(some) <= 2:
            return some
        counts = ", ".join(["total(instr(text, ?) > 0)"] * len(some))
        newest = f"SELECT lower(args_summary) AS text FROM tool_call_log ORDER BY rowid DESC LIMIT {ROWS_SAMPLED}"  # noqa: S608 - a number of ours
        ((*found,),) = self.connection.execute(f"SELECT {counts} FROM ({newest})", some)  # noqa: S608 - numbers of ours
        # The rarest of all may be in none of these rows, so that some of few are asked for, not the first alone.
        ranked = sorted(zip(found, range(len(some)), some, strict=True))[:MAX_TRIGRAMS]
        return [trigram for at, (count, _, trigram) in enumerate(ranked) if at < 2 or count <= ROWS_SAMPLED / FREQUENT]


def _place(row: Values) -> tuple[int, int]:
    return row[_CREATED_AT], row[_POSITION]
