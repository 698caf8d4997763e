"""What a row says of arguments is the same, whether they are read once or each time."""

import hashlib
import hmac
import json
import re
from typing import Any
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from recording import compact_json
from recording.args_key import ArgsKey
from recording.compact_json import MAX_VALUES, NOT_READ, TOO_MANY, has_too_many_values, read
from recording.redact import summarize_args

_KEY = ArgsKey("k", b"k" * 32)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(value=_VALUES, ascii_only=st.booleans(), spaced=st.booleans())
@example(value={"path": "a\ud800", "n": 10**18, "b": True}, ascii_only=True, spaced=False)
def test_a_digest_is_that_of_sorted_json_without_spaces(value: Any, ascii_only: bool, spaced: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1 if spaced else None)
    canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    expected = hmac.digest(_KEY.key, canonical.encode("utf-8", "surrogatepass"), hashlib.sha256)
    assert _KEY.digest(text) == _KEY.digest(text, read(text)) == expected


@given(text=_VALUES.map(json.dumps) | st.text())
@example(text='{"path": "a", "limit": 12345678901234567890123}')
@example(text='{"path": "a\nb"}')
@example(text=' {"limit": -1} ')
@example(text="")
@example(text='{"limit": NaN}')
def test_a_summary_is_the_same_of_what_was_read_before(text: str) -> None:
    assert summarize_args("read", text, value=read(text)) == summarize_args("read", text)


def test_what_needs_care_is_not_read() -> None:
    for text in ("", " {}", "{} ", "{", '{"a": 1234567890123456789}', "[" * 20_000, "\ufeff{}"):
        assert read(text) is NOT_READ
    assert read('{"a": 123456789012345678}') == {"a": 123456789012345678}


def test_what_has_too_many_values_is_read_by_nobody_and_taken_as_a_text() -> None:
    text = '{"path":[' + "[]," * MAX_VALUES + "[]]}"
    assert read(text) is TOO_MANY
    malformed = json.dumps({"$malformed": {"bytes": len(text)}}, separators=(",", ":"))
    assert summarize_args("read", text, value=TOO_MANY) == summarize_args("read", text) == malformed
    digest = hmac.digest(_KEY.key, text.encode(), hashlib.sha256)
    assert _KEY.digest(text, TOO_MANY) == _KEY.digest(text) == digest


def test_signs_in_strings_make_no_values() -> None:
    text = json.dumps({"content": "[]," * MAX_VALUES})
    assert read(text) == json.loads(text)


def test_values_are_counted_wherever_they_stand_and_beside_strings_of_any_length() -> None:
    """The beginning, which is looked at first, may end in a string, or behind the sign that escapes the next one."""
    for length in (0, 256 * 1024 - 20, 256 * 1024 - 3, 300_000, 2_000_000):
        for sign in ('"', "\\", "[", "x"):
            string = json.dumps("x" * length + sign * 40)
            assert not has_too_many_values(f'{{"a":{string},"b":[{"1," * (MAX_VALUES - 10)}1]}}')
            assert has_too_many_values(f'{{"a":{string},"b":[{"1," * MAX_VALUES}1]}}')
            assert not has_too_many_values(f"[{'1,' * MAX_VALUES}1]".encode(), 10 * MAX_VALUES)


@given(value=_VALUES, piece=st.integers(1, 5), ascii_only=st.booleans())
def test_the_count_is_the_same_however_a_text_is_cut(value: Any, piece: int, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    signs = len(re.findall(r"[,:\[{]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)))
    with mock.patch.object(compact_json, "_PIECE", piece):
        for given in (text, text.encode("utf-8", "replace")):
            assert signs == 0 or has_too_many_values(given, signs - 1)
            assert not has_too_many_values(given, signs)
