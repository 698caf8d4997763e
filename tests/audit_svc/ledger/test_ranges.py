"""A range is cut into pieces that make exactly it."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.ranges import Piece, cut
from audit_svc.ledger.steps import DAY_MS, HOUR_MS, STEPS, Step

MINUTE_MS = 60_000
END = 1_000 * DAY_MS
TIMES = (
    st.integers(0, 2 * DAY_MS)
    | st.integers(0, END)
    | st.builds(
        lambda step, number, off: min(number * step.ms + off, END),
        st.sampled_from(STEPS),
        st.integers(0, 900),
        st.sampled_from([-1, 0, 1, 5 * MINUTE_MS, HOUR_MS]),
    ).filter(lambda time: time >= 0)
)
HOURS = TIMES.map(lambda time: time // HOUR_MS * HOUR_MS)


def covered(pieces: list[Piece]) -> dict[tuple[int, int], int]:
    """How often each time is in the pieces, where it is at all, as ranges."""
    changes = Counter[int]()
    for _, begin, end, sign in pieces:
        changes[begin] += sign
        changes[end] -= sign
    found, times, at = dict[tuple[int, int], int](), sorted(time for time, by in changes.items() if by), 0
    for first, last in pairwise(times):
        at += changes[first]
        if at:
            found[first, last] = at
    return found


@given(
    begin=TIMES, end=TIMES | st.just(MAX_INT64), longest=st.sampled_from([0, HOUR_MS, DAY_MS, MAX_INT64]), folded=HOURS
)
def test_the_pieces_are_the_range_and_each_is_of_whole_periods_that_its_step_has(begin, end, longest, folded):
    steps = [step for step in STEPS if step.ms <= longest]
    pieces = list(cut(begin, end, steps, folded))
    assert covered(pieces) == ({(begin, end): 1} if begin < end else {})
    for step, first, last, _ in pieces:
        assert first < last
        if step is None:
            continue
        assert first % step.ms == 0
        if step.live:
            assert last % step.ms == 0 or last == MAX_INT64
        else:
            assert last <= folded
            assert last % step.ms == 0 or last == folded


def periods(pieces: list[Piece], until: int) -> Counter[Step | None]:
    """How many periods of each step are read of a ledger that ends then; of the rows, how many minutes."""
    read = Counter[Step | None]()
    for step, begin, end, _ in pieces:
        size = step.ms if step else MINUTE_MS
        read[step] += max(0, -(-min(end, until) // size) - begin // size)
    return read


@given(days=st.integers(1, 900), end=TIMES, ago=st.integers(0, DAY_MS))
def test_few_periods_are_read_however_long_the_range_is(days, end, ago):
    now = end + ago
    folded = now - now % HOUR_MS
    pieces = list(cut(max(end - days * DAY_MS, 0), end, STEPS, folded))
    read = periods(pieces, now)
    assert read[None] <= 2 * 5 + 2
    assert sum(number for step, number in read.items() if step) <= days / 64 + 35


@pytest.mark.parametrize(("days", "most"), [(1, 12), (7, 18), (30, 22), (90, 22)])
def test_a_usual_range_reads_few_periods(days, most):
    for minutes in range(0, 128 * 1440, 997):
        now = END + minutes * MINUTE_MS
        read = periods(list(cut(now - days * DAY_MS, MAX_INT64, STEPS, now - now % HOUR_MS)), now)
        assert read[None] <= 6
        assert sum(number for step, number in read.items() if step) <= most


def test_all_time_is_read_from_the_longest_step_and_the_hour_that_goes_on():
    folded = 5 * HOUR_MS + 100 * DAY_MS
    assert [(step and step.name, *rest) for step, *rest in cut(0, MAX_INT64, STEPS, folded)] == [
        ("64d", 0, folded, 1),
        ("hourly", folded, MAX_INT64, 1),
    ]
