"""A range of time in pieces: what the periods of the rollups cover, and the rest, so that little is read."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.steps import HOUR_MS, Step


class Piece(NamedTuple):
    """A part of a range, or what another part has too much."""

    step: Step | None
    """What covers it; None for the rows themselves."""
    begin: int
    end: int
    sign: int
    """1, or -1 for what is to be taken off."""


class _Way(NamedTuple):
    """From an end of the range to a time."""

    price: float
    parts: tuple[tuple[int, int, int], ...] = ()
    """Which step, 0 for the rows, and the two times, that which is nearer to the range's end first."""


ROWS_PRICE = 8
"""What the rows of one period of the finest step cost, where one period of any step costs 1."""
PIECE_PRICE = 0.5
"""What a statement costs besides."""
OPEN_MS = 2 * HOUR_MS
"""Rows of so long after the mark of what is folded are counted with."""


def cut(begin: int, end: int, steps: Sequence[Step], folded_before: int) -> Iterator[Piece]:
    """The pieces of a range, in milliseconds, that are cheapest to read; end may be MAX_INT64.

    Where an end of the range cuts a period, that is what finer steps have within the range, or the whole period less
    what they have beyond the range.

    steps: the finest first, each a multiple of the one before.
    folded_before: a whole hour; the steps that are not live have nothing of after it.
    """
    latest = folded_before + OPEN_MS
    if not all(step.live for step in steps) and begin < folded_before < end:
        yield from _cheapest(begin, folded_before, steps, folded_before, latest)
        begin = folded_before
    if begin < end <= folded_before:
        yield from _cheapest(begin, end, steps, folded_before, latest)
    elif begin < end:
        yield from _cheapest(begin, end, [step for step in steps if step.live], MAX_INT64, latest)


def _cheapest(begin: int, end: int, steps: Sequence[Step], limit: int, latest: int) -> Iterator[Piece]:
    """As cut() where the steps have the same of all that is before limit. Rows of after latest are not counted with."""
    sizes = [steps[0].ms / ROWS_PRICE if steps else 1.0, *(step.ms for step in steps)]

    def price(number: int, one: int, other: int) -> float:
        return PIECE_PRICE + abs(min(one, latest) - min(other, latest)) / sizes[number] if one != other else 0.0

    def further(ways: dict[int, _Way], number: int, targets: Sequence[int]) -> dict[int, _Way]:
        """The cheapest way to each target by one step more."""
        return {
            to: min(_Way(way.price + price(number, at, to), (*way.parts, (number, at, to))) for at, way in ways.items())
            for to in targets
            if to <= limit and ways
        }

    before, after = {begin: _Way(0.0)}, {end: _Way(0.0)}
    best = (price(0, begin, end), _Way(0.0), (0, begin, end), _Way(0.0))
    for number, step in enumerate(steps, 1):
        down, up = begin - begin % step.ms, begin + -begin % step.ms
        before = further(before, number - 1, [down, up])
        down, up = end - end % step.ms, end + -end % step.ms
        after = further(after, number - 1, [down, up])
        if end == MAX_INT64 or (end == limit and not step.live):
            after[end] = _Way(0.0)
        for first, to_first in before.items():
            for last, to_last in after.items():
                if first < last:
                    whole = to_first.price + price(number, first, last) + to_last.price
                    best = min(best, (whole, to_first, (number, first, last), to_last))
    _, to_first, middle, to_last = best
    for number, near, far in (*to_first.parts, middle, *((number, far, near) for number, near, far in to_last.parts)):
        if near != far:
            yield Piece(steps[number - 1] if number else None, min(near, far), max(near, far), 1 if near < far else -1)
