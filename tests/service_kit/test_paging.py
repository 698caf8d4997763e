"""Page sizes and page tokens."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.paging import InvalidPage, decode_token, encode_token, page_size

positions = st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8"), max_size=40))


def test_a_page_has_100_rows_by_default_and_at_most_1000():
    assert [page_size(n) for n in (0, 1, 1000, 1001, 2**31 - 1)] == [100, 1, 1000, 1000, 1000]


def test_a_negative_page_size_is_refused():
    with pytest.raises(InvalidPage, match="page_size"):
        page_size(-1)


@given(positions, st.binary(max_size=50))
def test_a_token_gives_its_position_back_for_its_own_filters(position, filters):
    assert decode_token(encode_token(position, filters), filters, (int, str)) == position


@given(positions, st.binary(max_size=50), st.binary(max_size=50))
def test_a_token_is_refused_for_other_filters(position, filters, others):
    if filters != others:
        with pytest.raises(InvalidPage):
            decode_token(encode_token(position, filters), others, (int, str))


@given(positions, st.data())
def test_a_token_that_was_changed_or_cut_is_refused(position, data):
    token = encode_token(position, b"f")
    index = data.draw(st.integers(0, len(token) - 1))
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    for forged in (token[:index], base64.urlsafe_b64encode(raw).decode()):
        with pytest.raises(InvalidPage, match="page_token"):
            decode_token(forged, b"f", (int, str))


@given(st.text(max_size=60))
def test_any_text_as_a_token_is_refused(text):
    with pytest.raises(InvalidPage):
        decode_token(text, b"f", (int, str))


@pytest.mark.parametrize("position", [(1,), ("a", 1), (1, "a", 2), (2**63, "a"), (True, "a"), (1, "\ud800")])
def test_a_token_of_another_shape_is_refused_even_when_its_checksum_is_right(position):
    with pytest.raises(InvalidPage):
        decode_token(encode_token(position, b"f"), b"f", (int, str))
