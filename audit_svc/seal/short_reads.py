"""Leaves read in parts, each in a moment of its own, which has ended before anything is done with them.

A moment that lasts keeps a store from forgetting what is older: in SQLite the WAL grows as long, and a process of the
lowest priority may stand still in the middle of one. Rows are never changed, and a later moment has all of an earlier
one, save for what a removal names that comes behind it.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from audit_svc.seal.leaf import Kind
from audit_svc.seal.ledger import Row, SealedLedger

READ_ROWS = 4096
"""The most that are read in a moment."""
READ_SECONDS = 0.02
"""A moment that has taken longer ends, with what was read in it."""

_LOOK_ROWS = 128


def leaves_in_parts(
    ledger: SealedLedger, kind: Kind, after: int, until: int | None = None, limit: int | None = None
) -> Iterator[Row]:
    """As SealedLedger.leaves_after(), of as many moments as it takes. No moment is open outside."""
    left = limit
    while left is None or left > 0:
        wanted = READ_ROWS if left is None else min(left, READ_ROWS)
        rows, are_all = _some(ledger, kind, after, until, wanted)
        yield from rows
        if are_all and len(rows) < wanted:
            return
        after = rows[-1][0]
        left = None if left is None else left - len(rows)


def _some(ledger: SealedLedger, kind: Kind, after: int, until: int | None, wanted: int) -> tuple[list[Row], bool]:
    """Some rows, and whether those are all that were wanted and are there."""
    rows: list[Row] = []
    give_up = time.monotonic() + READ_SECONDS
    with closing(ledger.leaves_after(kind, after, until, wanted)) as found:
        while more := list(islice(found, _LOOK_ROWS)):
            rows += more
            if time.monotonic() > give_up:
                return rows, False
    return rows, True
