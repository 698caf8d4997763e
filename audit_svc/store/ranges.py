"""A range of time in pieces: what whole days cover, what whole hours cover, and the rest."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from audit_svc.store.columns import MAX_INT64


class Piece(NamedTuple):
    """A part of a range, or what another part has too much."""

    step: str
    """The name of what covers it; empty for the rows themselves."""
    begin: int
    end: int
    sign: int
    """1, or -1 for what is to be taken off."""


def cut(begin: int, end: int, steps: Sequence[tuple[str, int]], whole_from: int, sign: int = 1) -> Iterator[Piece]:
    """The pieces of a range, in milliseconds; end may be MAX_INT64.

    A step that an end of the range cuts is what is finer within the range, or the whole step less what is finer beyond
    the range, whichever is shorter.

    steps: names and milliseconds, the coarsest first, each a multiple of the next.
    whole_from: where a step holds what the finer ones hold; nothing is taken off what is before.
    """
    if begin >= end:
        return
    if not steps:
        yield Piece("", begin, end, sign)
        return
    (name, step), finer = steps[0], steps[1:]
    first = _round(begin, step) if begin >= whole_from else begin + -begin % step
    last = end if end == MAX_INT64 else _round(end, step) if end >= whole_from else end - end % step
    if first >= last:
        yield from cut(begin, end, finer, whole_from, sign)
        return
    yield from cut(begin, first, finer, whole_from, sign)
    yield from cut(first, begin, finer, whole_from, -sign)
    yield Piece(name, first, last, sign)
    yield from cut(last, end, finer, whole_from, sign)
    yield from cut(end, last, finer, whole_from, -sign)


def _round(time: int, step: int) -> int:
    """The nearest end of a step."""
    return (time + step // 2) // step * step
