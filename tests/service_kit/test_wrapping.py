"""Long sentences are broken between words on a terminal, and commands in them never."""

import pytest

from service_kit.terminal.printing import Printer

ID = "01a22cbe-7cfa-7d2e-9247-4634bd9bfb66"


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        (
            f"the gateway went away during the turn, and what ran is on record: `onrecord show {ID}`",
            ["the gateway went away during the turn, and what ran is on", f"record: `onrecord show {ID}`"],
        ),
        (f"`{'word ' * 20}end` it is", [f"`{'word ' * 20}end`", "it is"]),
        (f"a quote ` alone {'word ' * 12}", [f"a quote ` alone {'word ' * 8}word", "word word word"]),
    ],
)
def test_a_sentence_is_broken_between_words_and_no_command_is(said, lines, capsys, monkeypatch):
    monkeypatch.setattr(Printer, "width", 60)
    Printer().print(said)
    assert capsys.readouterr().out.splitlines() == lines
