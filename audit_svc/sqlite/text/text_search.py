"""Calls whose args_summary has a text that is rare, by the index of trigrams.

Segments are gone through by the times of their calls, the newest first, and so are the zones of each, until none can
have a newer row than the page's last. In a zone those rows are read that have every trigram of the text.
"""

import heapq
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
from pyroaring import BitMap

from audit_svc.ledger.batch import TOOL_CALL_COLUMNS, Values
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition, Statement
from audit_svc.sqlite.text import text_rows
from audit_svc.sqlite.text.text_index import first_unindexed, unindexed_rows
from audit_svc.sqlite.text.text_segments import Segment, rows_with
from service_kit.paging import Position

MAX_TRIGRAMS = 64
ROWS_AT_ONCE = 128
ZONES_TRIED = 8
"""Before the index is found to be of no help."""
ENTRY_ROWS = 2
BYTES_A_ROW = 6000
"""A row is read in the time in which so many bytes of an entry are; an entry of none takes as long as ENTRY_ROWS."""
MAX_UNINDEXED = 200_000
"""Rows that are looked at one by one before the index: beyond this, going by time is quicker."""

_NAMES = [column.name for column in TOOL_CALL_COLUMNS]
_CREATED_AT, _ID = _NAMES.index("created_at"), _NAMES.index("id")
_UNINDEXED = f"SELECT {', '.join(_NAMES)} FROM tool_call_log NOT INDEXED WHERE rowid >= ?"  # noqa: S608 - names of ours
_INDEXED = (
    f"SELECT {', '.join(_NAMES)} FROM (SELECT value AS number FROM json_each(?)) CROSS JOIN tool_call_log NOT INDEXED "  # noqa: S608 - names of ours
    "WHERE rowid = number"
)
_SEGMENTS = (
    "SELECT segment, zone, zones, earliest, latest FROM args_index_segments "
    "INDEXED BY idx_args_index_segments_latest WHERE latest >= ? AND earliest <= ?"
)
_ZONES = "SELECT zone, latest FROM args_index_zones WHERE zone >= ? AND zone < ? AND latest >= ? AND earliest <= ?"


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
    most_rows: float = 1.0
    """The share of rows beyond which the index is of no help, and the search ends early."""
    _best: list[Values] = field(default_factory=list)
    _rest: Statement = field(default_factory=lambda: Statement("", []))
    """What is asked of all rows, wherever they are."""
    _shares: dict[str, float] = field(default_factory=dict)
    """Of the rows, by trigram, as far as it was looked at."""

    def rows(self, position: Position) -> tuple[list[Values], Position | None]:
        """Those that come after position, and where to go on if it has ended early: else there are no others."""
        # In one moment: entries of a segment go once a larger one has them.
        with self.connection:
            found = self._rows(position)
        return found  # noqa: RET504 - what apsw says of its blocks does not rule out that they swallow errors

    def _rows(self, position: Position) -> tuple[list[Values], Position | None]:
        if unindexed_rows(self.connection) > MAX_UNINDEXED:
            return [], position
        # The text is the first condition, which few rows meet, and which lies before the other columns.
        sql, arguments = listing.select("", [*self.conditions, *listing.after_key(position)])
        sql = f"{sql.replace(' WHERE', ' AND', 1)} ORDER BY created_at DESC, id DESC LIMIT {self.size}"
        self._rest = Statement(sql, arguments)
        self._look(_UNINDEXED, first_unindexed(self.connection))
        self.trigrams = self.trigrams[:: -(-len(self.trigrams) // MAX_TRIGRAMS)]
        return self._indexed(position)

    def _indexed(self, position: Position) -> tuple[list[Values], Position | None]:
        ends = self.from_ms, position[0]
        # What comes next is what may have the newest row: a segment, of which zones are made, or a zone and its rows.
        segments: list[Any] = self.connection.execute(_SEGMENTS, ends).fetchall()
        waiting: list[tuple[int, int, Segment | tuple[int, BitMap]]] = [
            (-segment.latest, -1 - segment.number, segment) for segment in map(Segment._make, segments)
        ]
        heapq.heapify(waiting)
        zones, rows = 0, 0
        numbers: list[int] = []
        while waiting:
            latest = -waiting[0][0]
            is_vain = zones > ZONES_TRIED and rows > zones * self.most_rows * text_rows.ZONE_ROWS
            is_over = is_vain or time.monotonic() > self.give_up
            if numbers and (is_over or len(self._best) == self.size or len(numbers) >= ROWS_AT_ONCE):
                self._look(_INDEXED, json.dumps(numbers))
                numbers = []
            if len(self._best) == self.size and self._last_ms() > latest:
                return self._best, None
            if is_over:
                return self._until(latest, position)
            _, _, place = heapq.heappop(waiting)
            if not isinstance(place, Segment):
                first, found = place
                numbers += [first + row for row in found]
                continue
            found = self._candidates(place)
            first = place.zone * text_rows.ZONE_ROWS
            if len(found) <= ROWS_AT_ONCE:
                # They are read as soon as the times of their zones.
                numbers += [first + row for row in found]
                zones, rows = zones + place.zones, rows + len(found)
                continue
            within = place.zone, place.zone + place.zones
            for zone, newest in self.connection.execute(_ZONES, (*within, *ends)):
                begin = (zone - place.zone) * text_rows.ZONE_ROWS
                part = found & BitMap(range(begin, begin + text_rows.ZONE_ROWS))
                zones, rows = zones + 1, rows + len(part)
                if part:
                    heapq.heappush(waiting, (-newest, zone, (first, part)))
        self._look(_INDEXED, json.dumps(numbers))
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

    def _candidates(self, segment: Segment) -> BitMap:
        """Rows of a segment that have every trigram, or so few others that they cost less than what tells them."""
        whole = segment.zones * text_rows.ZONE_ROWS
        self.trigrams.sort(key=lambda trigram: self._shares.get(trigram, 1.0))
        found = BitMap(range(whole))
        ruled_out = whole
        for place, trigram in enumerate(self.trigrams):
            share = self._shares.get(trigram, 0.0)
            cost = ENTRY_ROWS + min(2 * share, 1 / 8) * whole / BYTES_A_ROW
            # What has ruled out none may be followed by others like it, which cost more than the rows do.
            is_vain = ruled_out <= cost and len(found) <= cost * (len(self.trigrams) - place)
            if is_vain or (1 - share) * len(found) <= cost:
                break
            rows = rows_with(self.connection, segment.number, trigram)
            self._shares.setdefault(trigram, len(rows) / whole)
            ruled_out = len(found)
            found &= rows
            ruled_out -= len(found)
        return found


def _place(row: Values) -> tuple[int, str]:
    return row[_CREATED_AT], row[_ID]
