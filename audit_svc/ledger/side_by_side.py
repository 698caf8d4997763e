"""Positions that stand side by side, as ranges."""

from collections.abc import Iterator, Sequence
from itertools import groupby


def side_by_side(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges of sorted positions, both ends included."""
    for _, group in groupby(enumerate(positions), lambda pair: pair[1] - pair[0]):
        together = [position for _, position in group]
        yield together[0], together[-1]
