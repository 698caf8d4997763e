"""A range is cut into pieces that make exactly it."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.ranges import cut
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


@given(begin=TIMES, end=TIMES | st.just(MAX_INT64), longest=st.sampled_from([0, HOUR_MS, DAY_MS, MAX_INT64]))
def test_the_pieces_are_the_range_in_order_and_each_is_of_whole_periods(begin, end, longest):
    pieces = list(cut(begin, end, [step for step in STEPS if step.ms <= longest]))
    if begin >= end:
        assert pieces == []
        return
    assert pieces[0].begin == begin
    assert pieces[-1].end == end
    assert all(one.end == other.begin for one, other in pairwise(pieces))
    for step, first, last in pieces:
        assert first < last
        if step:
            assert first % step.ms == 0
            assert last % step.ms == 0 or last == MAX_INT64


@given(begin=TIMES, end=TIMES)
def test_each_end_of_a_range_reads_less_than_a_period_of_the_next_longer_step(begin, end):
    read = Counter[Step | None]()
    for step, first, last in cut(begin, end, STEPS):
        read[step] += last - first
    longer = [HOUR_MS, *(step.ms for step in STEPS[1:])]
    for step, size in zip([None, *STEPS[:-1]], longer, strict=True):
        assert read[step] < 2 * size


@pytest.mark.parametrize("end", [MAX_INT64, 32 * DAY_MS])
def test_all_time_is_read_from_the_longest_step(end):
    assert list(cut(0, end, STEPS)) == [(STEPS[-1], 0, end)]
