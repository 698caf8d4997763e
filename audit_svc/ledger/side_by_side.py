"""Positions that stand side by side, as ranges."""

from collections.abc import Iterator, Sequence
from itertools import groupby


def side_by_side(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges of sorted positions, both ends included."""
    if positions and positions[-1] - positions[0] == len(positions) - 1:
        yield positions[0], positions[-1]
        return
    for _, group in groupby(enumerate(positions), lambda pair: pair[1] - pair[0]):
        together = [position for _, position in group]
        yield together[0], together[-1]
