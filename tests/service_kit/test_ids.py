"""Ids for hands."""

import pytest
import uuid_utils
from hypothesis import given
from hypothesis import strategies as st

from service_kit.terminal.command import BadParameter
from service_kit.terminal.ids import is_whole, short_ids, too_short, whole_id
from service_kit.terminal.outcomes import outcome_text
from service_kit.terminal.printing import Table

FIRST, SECOND = "01900000-0000-7000-8000-00000000cafe", "01900000-0000-7000-8000-10000000cafe"
UUIDS = st.uuids().map(str)


@given(st.lists(st.one_of(UUIDS, st.text(min_size=1, max_size=40)), unique=True, max_size=20))
def test_what_a_list_shows_of_ids_stands_for_each_of_them_alone(ids):
    short = short_ids(ids)
    assert len(set(short.values())) >= len({each for each in ids if is_whole(each) and each})
    for each, shown in short.items():
        others = [other for other in ids if other != each and (other.startswith(shown) or other.endswith(shown))]
        if is_whole(each) and shown not in ids and not others:
            assert whole_id(shown, ids, "") == each


def test_ids_made_in_one_moment_are_told_apart_by_8_characters():
    ids = [str(uuid_utils.uuid7()) for _ in range(100)]
    assert {len(short) for short in short_ids(ids).values()} <= {8, 9}
    assert all(whole_id(short, ids, "") == each for each, short in short_ids(ids).items())


def test_as_many_characters_are_shown_as_tell_ids_apart():
    assert short_ids([FIRST, SECOND, "s1"]) == {FIRST: "00000000cafe", SECOND: "10000000cafe", "s1": "s1"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("@last", SECOND),
        ("10000000cafe", SECOND),
        ("01900000-0000-7000-8000-0", FIRST),
        ("s1", "s1"),
        ("elsewhere", "elsewhere"),
        ("e", "e"),
    ],
)
def test_the_first_or_last_characters_stand_for_an_id(typed, meant):
    assert whole_id(typed, [SECOND, FIRST, "s1", "s12"], "SESSION") == meant


def test_what_fits_several_is_refused_with_their_names():
    with pytest.raises(BadParameter, match=f"fits 2: {SECOND}, {FIRST}"):
        whole_id("cafe", [SECOND, FIRST], "SESSION")
    with pytest.raises(BadParameter, match="there is none"):
        whole_id("@last", [], "SESSION")
    with pytest.raises(BadParameter, match="is @last meant"):
        whole_id("@lst", [SECOND], "SESSION")


def test_a_part_that_is_too_short_is_told_so_where_nothing_has_it_for_its_id():
    said = "; a part of an id needs at least 4 characters"
    assert [too_short(text) for text in ("", "e", "afe", "cafe")] == ["", said, said, ""]


def test_a_table_has_short_ids_where_its_lines_end_and_whole_ones_elsewhere():
    table = Table("session", "cost", ids=["session"])
    table.add_row(FIRST, "$1.000000")
    assert [*map(str, table.lines(80))][1] == "0000cafe  $1.000000"
    assert [*map(str, table.lines())][1] == f"{FIRST}  $1.000000"


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (("succeeded", 0, None), "\x1b[32msucceeded\x1b[0m"),
        (("succeeded", None, 200), "\x1b[32msucceeded HTTP 200\x1b[0m"),
        (("succeeded", 2, None), "\x1b[31mexit 2\x1b[0m"),
        (("succeeded", None, 404), "\x1b[31mHTTP 404\x1b[0m"),
        (("failed", 2, None), "\x1b[31mfailed exit 2\x1b[0m"),
        (("", None, None), "\x1b[32mended\x1b[0m"),
    ],
)
def test_a_call_that_ended_badly_is_red_and_says_how(ended, text):
    assert outcome_text(*ended).styled() == text
