"""A text is also looked at as the program that gets it will read it."""

import pytest

from recording.redact import redact_text
from recording.redact.spans import Span
from recording.redact.views import View, view

READS = {
    "gh'p'_\"abc\"": "ghp_abc",
    "a\\\nb": "ab",
    "a\\ b\\$c": "a b$c",
    "\\x67\\u0068\\160_": "ghp_",
    "%67%48p%5F": "gHp_",
    "%zz %e9 100%": "%zz %e9 100%",
    '\\"k\\": \\"v\\"': '"k": "v"',
    "\\s*\\w+": "\\s*\\w+",
    "trailing\\": "trailing\\",
    "gh\u200bp_\u00adabc\ufeff": "ghp_abc",
    "ｇｈｐ＿a\u2011b": "ghp_a-b",
}


@pytest.mark.parametrize("text", READS)
def test_escapes_and_quotes_are_read(text):
    assert View(text).text == READS[text]


def test_what_reads_as_it_is_written_is_not_looked_at_twice():
    assert view("ls -la 'src' \"lib\" && git status") is None


@pytest.mark.parametrize("text", ["x gh'p_abc'def y", "x ghp_%61bcdef y", "x g\\hp_abcdef y", "x ghp_abc\\\ndef y"])
def test_a_part_of_what_is_read_is_found_where_it_is_written(text):
    reading = View(text)
    start = reading.text.index("ghp_abcdef")
    ((start, end, _),) = reading.written([Span(start, start + len("ghp_abcdef"), "*")])
    assert text[:start] == "x "
    assert text[end:] == " y"


@pytest.mark.parametrize(
    "written",
    [
        "gh'p'_" + "a1" * 18,
        'g"hp_' + "a1" * 17 + '"a1',
        "gh\\p_" + "a1" * 18,
        "%67hp%5F" + "a1" * 18,
        "gh\\x70_" + "a1" * 18,
        "gh$'\\x70_" + "a1" * 18 + "'",
        "ghp_a1a1a1\\\n" + "a1" * 15,
        "pass''word=" + "a1" * 18,
        "pass\u200bword=" + "a1" * 18,
        "ｐａｓｓｗｏｒｄ＝" + "a1" * 18,
        "sk\u2011ant\u2011" + "a1" * 18,
    ],
)
def test_a_secret_is_found_however_it_is_quoted(written):
    assert "a1a1a1a1" not in redact_text(f"run {written} now")
