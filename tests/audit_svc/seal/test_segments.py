"""Which leaf each position has, against a dictionary that knows it of every row."""

from hypothesis import given
from hypothesis import strategies as st

from audit_svc.seal.history import Segments
from audit_svc.seal.log import Run

runs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4)), max_size=12)
"""Of each how far it is behind the one before, by position and by index, and its rows."""


@given(runs, st.integers(0, 40))
def test_positions_have_the_leaves_that_runs_say_up_to_a_cut(runs: list[tuple[int, int, int]], kept: int):
    segments, known = Segments("tool_call"), dict[int, int]()
    position, index = 1, 0
    for further, later, rows in runs:
        position, index = position + further, index + later
        segments.add(Run(index, "tool_call", 1, position, rows))
        known |= {position + place: index + place for place in range(rows)}
        position, index = position + rows, index + rows
    assert [segments.row(number) for number in range(len(segments))] == list(known.items())
    segments.cut(kept)
    known = {at: leaf for at, leaf in known.items() if at <= kept}
    assert [segments.row(number) for number in range(len(segments))] == list(known.items())
    assert {at: segments.index_of(at) for at in range(60)} == {at: known.get(at) for at in range(60)}
    assert segments.last_position == max(known, default=0)
    assert [at for run in segments for at in range(run.first_position, run.last_position + 1)] == list(known)
