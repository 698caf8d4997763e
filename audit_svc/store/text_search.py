"""Calls whose args_summary has a text that is rare, by the index of trigrams.

Zones are gone through by the times of their calls, the newest first, until none can have a newer row than the page's
last. In a zone only those blocks of rows are read that have every trigram of the text.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import apsw

from audit_svc.store import listing, text_index
from audit_svc.store.listing import Condition, Statement
from audit_svc.store.rows import TOOL_CALL_COLUMNS, Values
from audit_svc.store.text_index import first_unindexed, unindexed_rows, unpack, zone_rows
from service_kit.paging import Position

MAX_TRIGRAMS = 64
BLOCKS_AT_ONCE = 16
ZONES_TRIED = 8
"""Before the index is found to be of no help."""
MAX_UNINDEXED = 200_000
"""Rows that are looked at one by one before the index: beyond this, going by time is quicker."""

_NAMES = [column.name for column in TOOL_CALL_COLUMNS]
_CREATED_AT, _ID = _NAMES.index("created_at"), _NAMES.index("id")
_UNINDEXED = f"SELECT {', '.join(_NAMES)} FROM tool_call_log NOT INDEXED WHERE rowid >= ?"  # noqa: S608 - names of ours
_INDEXED = (
    f"SELECT {', '.join(_NAMES)} FROM (SELECT value AS begin FROM json_each(?)) CROSS JOIN tool_call_log NOT INDEXED "  # noqa: S608 - names of ours
    "WHERE rowid >= begin AND rowid < begin + ?"
)
_ZONES = (
    "SELECT zone, latest FROM args_index_zones INDEXED BY idx_args_index_zones_latest "
    "WHERE latest >= ? AND earliest <= ? AND zone < ? ORDER BY latest DESC"
)
_BLOCKS = "SELECT blocks FROM args_index WHERE zone = ? AND trigram = ?"


@dataclass
class TextSearch:
    """Looks for the first size rows of the listing for which conditions hold, one of which is that of the text."""

    connection: apsw.Connection
    trigrams: list[str]
    """Of the text, at least one."""
    conditions: Sequence[Condition]
    from_ms: int
    size: int
    give_up: float
    """A time by the monotonic clock."""
    most_blocks: float = 1.0
    """The share of blocks beyond which the index is of no help, and the search ends early."""
    _best: list[Values] = field(default_factory=list)
    _rest: Statement = field(default_factory=lambda: Statement("", []))
    """What is asked of all rows, wherever they are."""

    def rows(self, position: Position) -> tuple[list[Values], Position | None]:
        """Those that come after position, and where to go on if it has ended early: else there are no others."""
        if unindexed_rows(self.connection) > MAX_UNINDEXED:
            return [], position
        # Read before the zones: a zone that is made meanwhile must not be met twice.
        first = first_unindexed(self.connection)
        # The text is the first condition, which few rows meet, and which lies before the other columns.
        sql, arguments = listing.select("", [*self.conditions, listing.beyond(position)])
        sql = f"{sql.replace(' WHERE', ' AND', 1)} ORDER BY created_at DESC, id DESC LIMIT {self.size}"
        self._rest = Statement(sql, arguments)
        self._look(_UNINDEXED, first)
        self.trigrams = self.trigrams[:: -(-len(self.trigrams) // MAX_TRIGRAMS)]
        zones, blocks, begins = 0, 0, list[int]()
        for zone, latest in self.connection.execute(_ZONES, (self.from_ms, position[0], first // zone_rows())):
            is_vain = zones > ZONES_TRIED and blocks > zones * self.most_blocks * text_index.ZONE_BLOCKS
            is_over = is_vain or time.monotonic() > self.give_up
            if begins and (is_over or len(self._best) == self.size or len(begins) >= BLOCKS_AT_ONCE):
                self._look(_INDEXED, json.dumps(begins), text_index.BLOCK_ROWS)
                begins = []
            if len(self._best) == self.size and self._last_ms() > int(latest):
                return self._best, None
            if is_over:
                return self._until(int(latest), position)
            found = self._candidates(int(zone))
            zones, blocks = zones + 1, blocks + len(found)
            begins += [int(zone) * zone_rows() + block * text_index.BLOCK_ROWS for block in found]
        self._look(_INDEXED, json.dumps(begins), text_index.BLOCK_ROWS)
        return self._best, None

    def _look(self, rows: str, *where: int | str) -> None:
        sql, arguments = self._rest
        if found := self.connection.execute(rows + sql, (*where, *arguments)).fetchall():
            self._best = sorted([*self._best, *found], key=_place, reverse=True)[: self.size]

    def _last_ms(self) -> int:
        return int(self._best[-1][_CREATED_AT])

    def _until(self, latest: int, position: Position) -> tuple[list[Values], Position]:
        """What no further zone can come between, when the next has rows up to latest."""
        sure = [row for row in self._best if int(row[_CREATED_AT]) > latest]
        return sure, min(position, (latest + 1, ""))

    def _candidates(self, zone: int) -> list[int]:
        """The blocks of zone that have every trigram."""
        found = -1
        for place, trigram in enumerate(self.trigrams):
            row = self.connection.execute(_BLOCKS, (zone, trigram)).fetchone()
            found &= unpack(row[0]) if row else 0
            if not found:
                # What has ruled out this zone will soonest rule out the next.
                self.trigrams.insert(0, self.trigrams.pop(place))
                break
        return list(_bits(found))


def _place(row: Values) -> tuple[int, str]:
    return row[_CREATED_AT], row[_ID]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1
