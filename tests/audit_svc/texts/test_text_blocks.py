"""Sets of blocks: what is packed is what was given, whatever its form, and joined it is the same."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_svc.store import text_blocks, text_segments, text_trigrams
from audit_svc.store.text_blocks import by_zone, count, has_all, join, narrow, pack, unpack


@pytest.fixture(autouse=True)
def large(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that a ledger has."""
    monkeypatch.undo()


@st.composite
def blocks(draw: st.DrawFn, zones: int) -> list[int]:
    """In order; few or many, near one another or not."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    begin, end = sorted(draw(st.tuples(*[st.integers(0, zones * text_blocks.ZONE_BLOCKS - 1)] * 2)))
    among = range(begin, end + 1)
    return sorted(chance.sample(among, min(len(among), draw(st.integers(1, 1000)))))


def members(mask_or_set: text_blocks.Blocks) -> list[int]:
    return [zone * text_blocks.ZONE_BLOCKS + bit for zone, mask in sorted(by_zone(mask_or_set)) for bit in ones(mask)]


def ones(mask: int) -> list[int]:
    return [place for place in range(mask.bit_length()) if mask >> place & 1]


@given(blocks(1), blocks(4))
def test_blocks_are_packed_and_unpacked(few, many):
    for some, zones in ((few, 1), (many, 4)):
        packed = pack(some, zones)
        assert members(unpack(packed, zones)) == some
        assert count(unpack(packed, zones)) == len(some)
        assert len(packed) <= zones * text_blocks.ZONE_BLOCKS // 8


@given(blocks(4), blocks(4))
def test_what_two_sets_have_both_is_found_whatever_their_forms(some, others):
    both = sorted(set(some) & set(others))
    assert members(narrow(unpack(pack(some, 4), 4), pack(others, 4), 4)) == both


@given(st.dictionaries(st.integers(0, 3), blocks(1), min_size=1))
def test_sets_of_zones_are_joined(zones):
    joined = join({zone: pack(some, 1) for zone, some in zones.items()}, 4)
    whole = [zone * text_blocks.ZONE_BLOCKS + block for zone, some in sorted(zones.items()) for block in some]
    assert members(unpack(joined, 4)) == whole
    assert joined == pack(whole, 4)


@given(blocks(4), blocks(1), st.integers(0, 3))
def test_a_set_has_all_of_a_zones_or_lacks_some(many, some, zone):
    first = zone * text_blocks.ZONE_BLOCKS
    whole = {first + block for block in some}
    assert has_all(pack(many, 4), 4, zone, pack(some, 1)) == (whole <= set(many))
    assert has_all(pack(sorted(whole | set(many)), 4), 4, zone, pack(some, 1))


def test_few_are_written_in_a_byte_each_and_many_in_a_bit_for_each_that_there_is():
    assert len(pack(range(0, 2048, 17), 1)) == 121
    assert len(pack(range(0, 2048, 16), 1)) == 256


def test_the_constants_fit_one_another():
    assert text_blocks.zone_rows() == 16_384
    assert text_blocks.ZONE_BLOCKS % text_trigrams.BLOCKS_A_STEP == 0
    # Each block is a character of its own where they are gathered.
    assert text_blocks.ZONE_BLOCKS < 0xD800
    assert text_blocks.JOINED_ZONES in text_segments.SIZES
    for small, large in zip(text_segments.SIZES, text_segments.SIZES[1:], strict=False):
        assert large % small == 0
    # An entry of 2,030 bytes is the largest that SQLite keeps within a page of 8 KiB of such a table.
    assert text_blocks.JOINED_ZONES * text_blocks.ZONE_BLOCKS // 8 + 20 < 2030
