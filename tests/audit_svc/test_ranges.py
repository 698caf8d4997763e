"""A range is cut into pieces that make exactly it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from audit_svc.store.columns import MAX_INT64
from audit_svc.store.ranges import Piece, cut

STEPS = [("long", 24), ("short", 6)]
SIZES = dict(STEPS)
TIMES = st.integers(0, 200)


def covered(pieces: list[Piece]) -> list[int]:
    """How often each time up to 400 is in the pieces."""
    times = Counter[int]()
    for _, begin, end, sign in pieces:
        for time in range(begin, min(end, 400)):
            times[time] += sign
    return [times[time] for time in range(400)]


@given(begin=TIMES, end=TIMES | st.just(MAX_INT64), steps=st.integers(0, 2), whole_from=TIMES)
def test_the_pieces_are_the_range_less_nothing_before_what_is_whole(begin, end, steps, whole_from):
    pieces = list(cut(begin, end, STEPS[2 - steps :], whole_from))
    assert covered(pieces) == [int(begin <= time < end) for time in range(400)]
    for name, first, last, sign in pieces:
        size = SIZES.get(name, 1)
        assert first < last
        assert first % size == 0
        assert last == MAX_INT64 or last % size == 0
        assert sign == 1 or first >= whole_from - whole_from % 24


@given(begin=TIMES, end=TIMES)
def test_no_more_than_half_of_a_step_is_read_from_what_is_finer(begin, end):
    read = Counter[str]()
    for name, first, last, _ in cut(begin, end, STEPS, 0):
        read[name] += last - first
    if read["long"]:
        assert read["short"] <= 2 * 12 + 2 * 6
        assert read[""] <= 2 * 3
