"""Splits a time range into whole periods of the rollups, and the rows at its two ends."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.steps import Step


class Piece(NamedTuple):
    """A part of a range, in milliseconds."""

    step: Step | None
    """The step that covers it; None for the rows themselves."""
    begin: int
    end: int


def cut(begin: int, end: int, steps: Sequence[Step]) -> Iterator[Piece]:
    """Yields the pieces of a range, in order: the longest whole periods in it, shorter ones at its ends.

    end: MAX_INT64 for a range without one.
    steps: the finest first, each a multiple of the one before.
    """
    if begin >= end:
        return
    if not steps:
        yield Piece(None, begin, end)
        return
    *finer, longest = steps
    first = begin + -begin % longest.ms
    last = end if end == MAX_INT64 else end - end % longest.ms
    if first >= last:
        yield from cut(begin, end, finer)
        return
    yield from cut(begin, first, finer)
    yield Piece(longest, first, last)
    yield from cut(last, end, finer)
