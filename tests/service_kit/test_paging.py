"""Page sizes and page tokens."""

import base64
import secrets
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit import paging
from service_kit.paging import InvalidPage, decode_token, encode_token, keep_key, page_size

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


@pytest.fixture
def started(monkeypatch):
    """Starts a process, as far as tokens go, with the key in that file."""

    def start(path) -> None:
        monkeypatch.setattr(paging, "_key", secrets.token_bytes(64))
        keep_key(path)

    return start


def test_a_token_outlives_a_restart_and_is_good_for_replicas_with_the_same_key(started, tmp_path):
    started(tmp_path / "page-key")
    token = encode_token((1, "session-of-ada"), b"f")
    started(tmp_path / "page-key")
    assert decode_token(token, b"f", (int, str)) == (1, "session-of-ada")
    assert encode_token((1, "session-of-ada"), b"f") == token
    assert stat.S_IMODE((tmp_path / "page-key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["page-key"]
    assert b"session" not in base64.urlsafe_b64decode(token + "==")
    started(tmp_path / "another")
    with pytest.raises(InvalidPage):
        decode_token(token, b"f", (int, str))


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 65])
def test_a_key_that_cannot_be_used_is_told_and_tokens_work_for_the_life_of_the_process(started, tmp_path, content):
    (tmp_path / "page-key").write_bytes(content)
    for path in (tmp_path / "page-key", tmp_path / "no-folder" / "page-key"):
        started(path)
        token = encode_token((1, "a"), b"f")
        assert decode_token(token, b"f", (int, str)) == (1, "a")
        started(path)
        with pytest.raises(InvalidPage):
            decode_token(token, b"f", (int, str))


@pytest.mark.parametrize("position", [(1,), ("a", 1), (1, "a", 2), (2**63, "a"), (True, "a"), (1, "\ud800")])
def test_a_token_of_another_shape_is_refused_even_when_its_key_is_right(position):
    with pytest.raises(InvalidPage):
        decode_token(encode_token(position, b"f"), b"f", (int, str))
