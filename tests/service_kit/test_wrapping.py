"""Long sentences are broken between words on a terminal, and commands in them never."""

import pytest

from service_kit.terminal.printing import Printer, Sentence, Table, _folded

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


def test_a_sentence_keeps_its_styles_and_goes_on_behind_blanks(monkeypatch):
    said = Sentence("+1.0s  ", "dim", beneath=7).append("stop everything").append(" · the runner deletes", "red")
    lines = said.lines(24)
    assert [str(line) for line in lines] == ["+1.0s  stop everything ·", "       the runner", "       deletes"]
    assert lines[1].styled() == "       \x1b[31mthe runner\x1b[0m"
    assert said.lines(None) == [said]


def test_a_reason_in_a_table_goes_on_below_itself_where_a_text_is_cut():
    reason = f"the runner deletes branches, as {ID} said, and nobody knows why it does that"
    table = Table("at", "who", "reason", least=("who", "reason"), text="reason", wraps=True)
    table.add_row("now", "a-caller-with-a-name", reason)
    table.add_row("now", "b", "")
    lines = [str(line) for line in table.lines(48)]
    assert table.left_out == ["who"]
    assert " ".join(" ".join(line[5:] for line in lines[1:-1]).split()) == reason
    assert max(map(len, lines)) <= 48
    assert [line[:5] for line in lines[1:-1]] == ["now  ", "     ", "     "]
    narrow = [str(line) for line in table.lines(23)]
    assert max(map(len, narrow)) <= 23
    assert "".join(line[5:] for line in narrow[1:-1]).replace(" ", "") == reason.replace(" ", "")


@pytest.mark.parametrize("reason", [f"a drill (stop {ID})", f"a drill ({ID})", f"a drill: {ID}, of ada"])
def test_an_id_is_broken_only_where_it_has_no_room(reason: str):
    for width in range(len(ID), 80):
        lines = [str(line) for line in Sentence(reason).lines(width, folds=True)]
        assert any(ID in line for line in lines), width
        assert max(map(len, lines)) <= width
        assert "".join(lines).replace(" ", "") == reason.replace(" ", "")


def test_what_may_be_left_out_is_before_an_id_is_broken_or_a_sign_stands_alone():
    table = Table("at", "took", "reason", least=("took", "reason"), text="reason", wraps=True)
    table.add_row("now", "12 ms", f"stopped by root: a drill (stop {ID})")
    for width in range(42, 80):
        assert any(f"{ID})" in str(line) for line in table.lines(width)), width


def test_a_word_is_folded_into_pieces_of_which_none_is_empty():
    assert _folded("ab", 1) == ["a", "b"]
    assert _folded("記録", 1) == ["記", "録"]
    assert _folded("", 1) == [""]
