"""Text of others on a terminal: nothing of it is obeyed, nothing of it is hidden, and letters stay letters."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.printable import PlainText, json_text, printable

HARMFUL = [
    *(
        "\x1b[31mred",
        "\x1b]0;title\x07",
        "\x1b]8;;http://x\x1b\\link",
        "\x9b2J",
        "\x1bP1$r\x1b\\",
        "\x1b(0",
        "a\rb",
        "\x08",
    ),
    *(
        "\u202etxt.exe",
        "\u2066x\u2069",
        "\u200bname",
        "na\u2060me",
        "\ufeffname",
        "\u3164",
        "\u115f",
        "\u034f",
        "\u180e",
    ),
    *("name\ufe0f", "\U000e0041", "\u2028", "\x85", "\xad", "\xa0", "\ud800", "\ue000"),
]


@pytest.mark.parametrize("text", HARMFUL)
def test_a_name_shows_what_cannot_be_seen(text):
    shown = printable(text)
    assert shown != text
    assert shown.isprintable()
    assert "\\" in shown


@pytest.mark.parametrize(
    "name", ["\u0430dmin", "adm\u0456n", "g\u03bfogle", "\uff41dmin", "\U0001d41admin", "rea\u217e", "admin\u00b9"]
)
def test_no_name_looks_like_another_of_latin_letters(name):
    shown = printable(name)
    assert shown.isascii()
    assert "\\" in shown


@given(st.text())
def test_a_name_is_visible_whatever_it_holds(text):
    shown = printable(text)
    assert shown.isprintable()
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in shown)


@pytest.mark.parametrize(
    "text", ["plain", "Grüße, 世界 ☃ 😀", "[bold]", "a\\b", "журнал файл.txt", "λόγος", "東京タワー…"]
)
def test_a_name_of_letters_is_left_as_it_is(text):
    assert printable(text) == text


@given(st.text(), st.booleans())
def test_json_says_the_same_and_acts_on_nothing(text, ascii_only):
    line = json_text({"name": text}, ascii_only=ascii_only)
    assert json.loads(line) == {"name": text}
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m b", "ared b"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x9b2Jb", "ab"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("\u202eabc\u202c", "abc"),
        ("می\u200cخواهم 👩\u200d👩\u200d👧 ❤\ufe0f é", "می\u200cخواهم 👩\u200d👩\u200d👧 ❤\ufe0f é"),
        ("\x1b", ""),
        ("\U000e0041\U000e007fx", "x"),
    ],
)
def test_a_model_s_text_keeps_its_letters_and_loses_what_is_obeyed(text, shown):
    assert PlainText().feed(text) == shown
    pieces = PlainText()
    assert "".join(pieces.feed(character) for character in text) == shown


OBEYED = st.sampled_from([*"\x1b\x9b\x9d\x07\x9c[]\\;m0123JP_^X", "\x1b[31m", "\x1b]0;t\x07", "text ", "\n"])


@pytest.mark.long
@given(st.lists(st.lists(OBEYED | st.text(max_size=3)).map("".join)))
def test_no_cut_lets_a_sequence_through(pieces):
    plain = PlainText()
    shown = "".join(plain.feed(piece) for piece in pieces)
    assert not any(unicodedata.category(character) == "Cc" and character not in "\n\t" for character in shown)


def test_an_unfinished_sequence_does_not_hold_a_text_for_ever():
    plain = PlainText()
    assert plain.feed("\x1b]0;" + "x" * 5000).strip("x") == ""
    assert plain.feed("after") == "after"
    assert plain.feed("\x1b]0;title\nnext line") == "\nnext line"
    assert plain.feed("\x1b[") == ""
    plain.end()
    assert plain.feed("31m") == "31m"


def test_all_of_unicode_is_looked_at():
    """What is drawn as nothing by its own category is escaped, at every code point."""
    hidden = [
        chr(number) for number in range(sys.maxunicode + 1) if unicodedata.category(chr(number)) in ("Cc", "Cf", "Cs")
    ]
    assert all(printable(character) != character for character in hidden)
