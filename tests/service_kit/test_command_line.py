"""The command lines of all programs."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated

import pytest

import audit_svc.__main__
import gateway_svc.__main__
import intake_svc.__main__
from service_kit.terminal.command import Argument, BadParameter, Exit, Option, echo
from service_kit.terminal.printing import Table
from service_kit.terminal.program import Command, Group, Program
from tests.support.command_line import invoke

PROGRAMS = [audit_svc.__main__.program, gateway_svc.__main__.program, intake_svc.__main__.program]
MAY_LOAD = {"apsw", "audit_svc", "google", "onrecord", "recording", "service_kit"}
"""What is not the standard library's, of what `usage --db` loads."""


def commands(group: Group) -> Iterator[Command]:
    for each in [*group.commands.values(), *([group.alone] if group.alone else [])]:
        yield from commands(each) if isinstance(each, Group) else [each]


def sample(
    name: Annotated[str, Argument(help="Who.")],
    text: Annotated[str, Option(help="A text.", envvar="SAMPLE_TEXT")] = "none",
    label: Annotated[list[str] | None, Option()] = None,
    limit: Annotated[int, Option(min=1)] = 5,
    watch: Annotated[bool, Option()] = True,
    as_json: Annotated[bool, Option("--json")] = False,
) -> None:
    """Say what was given."""
    if name == "nobody":
        raise BadParameter("is nobody", "NAME")
    echo([name, text, label, limit, watch, as_json])
    raise Exit(3 if name == "three" else 0)


SAMPLE = Program("sample", Group("A sample.", {"say": Command(f"{__name__}:sample", "Say what was given.")}))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_list_of_commands_says_of_each_what_its_function_says(program):
    for command in commands(program.root):
        said = (inspect.getdoc(command.load()) or "").split("\n")[0]
        first = command.help.rstrip(".").split(",")[0].split(";")[0].split(".")[0].split(" that this environment")[0]
        assert said.startswith(first), command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ada"], "['ada', 'none', None, 5, True, False]"),
        (["--text", "--json", "ada", "--json"], "['ada', '--json', None, 5, True, True]"),
        (["ada", "--label", "a=1", "--label=b=2", "--no-watch"], "['ada', 'none', ['a=1', 'b=2'], 5, False, False]"),
        (["--limit", "7", "--", "--text"], "['--text', 'none', None, 7, True, False]"),
        (["--text", "", "ada"], "['ada', '', None, 5, True, False]"),
    ],
)
def test_what_was_typed_is_what_the_command_gets(words, said):
    assert invoke(SAMPLE, ["say", *words]) == (0, f"{said}\n", "")


def test_a_variable_stands_for_an_option_that_is_not_given():
    assert "'env'" in invoke(SAMPLE, ["say", "ada"], {"SAMPLE_TEXT": "env"}).stdout
    assert "'own'" in invoke(SAMPLE, ["say", "ada", "--text=own"], {"SAMPLE_TEXT": "env"}).stdout
    assert "'none'" in invoke(SAMPLE, ["say", "ada"], {"SAMPLE_TEXT": ""}).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage: sample"),
        (["shout"], "there is no command 'shout'"),
        (["say"], "required: NAME"),
        (["say", "nobody"], "NAME: is nobody"),
        (["say", "ada", "--limit", "0"], "0 is less than 1"),
        (["say", "ada", "--limit", "many"], "'many' is not a whole number"),
        (["say", "ada", "--tex", "short"], "unrecognized arguments: --tex"),
        (["--unknown", "say"], "unrecognized arguments: --unknown"),
    ],
)
def test_what_is_wrong_is_told_with_exit_code_2(words, said):
    ended = invoke(SAMPLE, words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert said in ended.stderr


def test_a_command_ends_with_the_exit_code_that_it_says():
    assert invoke(SAMPLE, ["say", "three"]).exit_code == 3


def test_columns_are_as_wide_as_what_they_hold_in_cells_of_a_terminal():
    table = Table("name", "count", "last", numbers=["count"])
    table.add_row("世界", "7", "x")
    table.add_row("abcdef", "1,234", "")
    assert [*map(str, table.lines())] == ["name    count  last", "世界        7  x", "abcdef  1,234"]


def test_usage_of_a_file_loads_nothing_that_is_slow(tmp_path):
    """A reading command is ready before settings, servers and pictures of tables would be loaded."""
    loaded = (
        "import sys\n"
        "from audit_svc.__main__ import program\n"
        "try:\n"
        f"    program.main(['usage', '--db', {str(tmp_path / 'none.db')!r}])\n"
        "except SystemExit:\n"
        "    print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names, file=sys.stderr)\n"
        "    print('asyncio' in sys.modules, 'audit_svc.sqlite.store' in sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    refused, modules, others = ran.stderr.splitlines()
    assert "there is no file" in refused
    assert {name for name in modules.split() if not name.startswith(("_", "sitecustomize"))} <= MAY_LOAD
    assert others == "False False"
