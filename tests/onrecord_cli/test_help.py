"""What `-h` prints fits a terminal of 80 columns: in every command of the four programs."""

from collections.abc import Iterator

import pytest

import audit_svc.__main__
import gateway_svc.__main__
import intake_svc.__main__
import onrecord_cli.__main__
from service_kit.terminal.program import Group, Program

PROGRAMS = [
    onrecord_cli.__main__.program,
    gateway_svc.__main__.program,
    audit_svc.__main__.program,
    intake_svc.__main__.program,
]


def paths(group: Group) -> Iterator[list[str]]:
    """The words of each command, and of each group of them."""
    yield []
    for name, command in group.commands.items():
        for rest in paths(command) if isinstance(command, Group) else [[]]:
            yield [name, *rest]


@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_no_line_is_wider_than_the_terminal(program: Program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in paths(program.root):
        with pytest.raises(SystemExit) as ended:
            program.main([*words, "-h"])
        shown = capsys.readouterr().out.splitlines()
        assert ended.value.code == 0
        assert len(shown) > 3, words
        assert not [line for line in shown if len(line) > 80], words
