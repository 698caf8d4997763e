"""Sets of rows: what is packed is what was given, in few bytes, and what was never packed is told."""

import contextlib
import random

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from audit_svc.sqlite.text import text_rows, text_segments, text_trigrams
from audit_svc.sqlite.text.text_rows import pack, unpack
from audit_svc.sqlite.text.text_trigrams import in_steps


@pytest.fixture(autouse=True)
def large(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that a ledger has."""
    monkeypatch.undo()


@st.composite
def rows(draw: st.DrawFn) -> list[int]:
    """Few or many of a million, near one another or not."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    begin, end = sorted(draw(st.tuples(*[st.integers(0, 2**20 - 1)] * 2)))
    among = range(begin, end + 1)
    return sorted(chance.sample(among, min(len(among), draw(st.sampled_from((1, 50, 5000, 100_000))))))


@given(rows())
def test_rows_are_packed_and_unpacked(some):
    assert list(unpack(pack(BitMap(some)))) == some


@given(rows(), st.integers(0, 2**32))
def test_bytes_that_were_damaged_are_told_or_are_a_set(some, seed):
    chance = random.Random(seed)
    packed = bytearray(pack(BitMap(some)))
    for _ in range(chance.randrange(1, 5)):
        packed[chance.randrange(min(len(packed), 40))] = chance.randrange(256)
    cut = bytes(packed[: chance.choice((len(packed), chance.randrange(len(packed))))])
    with contextlib.suppress(apsw.CorruptError):
        assert len(list(unpack(cut))) == len(unpack(cut))


@pytest.mark.parametrize("packed", [b"", b"\0\0\0\0", pack(BitMap([1, 2, 3]))[:-1]])
def test_what_is_no_set_is_told(packed):
    with pytest.raises(apsw.CorruptError, match="rebuild-texts"):
        unpack(packed)


def test_few_rows_take_two_bytes_each_many_a_bit_for_each_that_there_is_and_runs_next_to_nothing():
    zone = range(text_rows.ZONE_ROWS)
    assert len(pack(BitMap(zone[::100]))) < 2 * len(zone[::100]) + 20
    assert len(pack(BitMap(range(0, 65536, 3)))) < 65536 / 8 + 20
    assert len(pack(BitMap(zone[::2]) | BitMap(zone[1::2]))) < 20


def test_a_step_has_many_small_sets_or_few_large_ones():
    sets = [(f"{number:03}", BitMap(range(number % 7 * 1000))) for number in range(300)]
    steps = list(in_steps(sets))
    assert [entry for step in steps for entry in step] == [(trigram, pack(rows)) for trigram, rows in sets]
    rows = [sum(len(unpack(packed)) for _, packed in step) for step in steps]
    assert len(steps) > 30
    assert max(rows) < text_trigrams.ROWS_A_STEP + 6000
    assert max(map(len, in_steps((trigram, BitMap([1])) for trigram, _ in sets * 10))) < 1000


def test_the_constants_fit_one_another():
    assert text_rows.ZONE_ROWS % text_trigrams.TEXTS_A_STEP == 0
    # Each row is a character of its own where they are gathered.
    assert text_rows.ZONE_ROWS < 0xD800
    for small, large in zip(text_segments.SIZES, text_segments.SIZES[1:], strict=False):
        assert large % small == 0
