"""The command lines of all programs."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import pytest

import audit_svc.__main__
import gateway_svc.__main__
import intake_svc.__main__
import onrecord_cli.__main__
from service_kit.terminal.command import Argument, BadParameter, Exit, Option, echo
from service_kit.terminal.printing import Table, ago
from service_kit.terminal.program import Command, Group, Program
from tests.support.command_line import invoke

PROGRAMS = [
    audit_svc.__main__.program,
    gateway_svc.__main__.program,
    intake_svc.__main__.program,
    onrecord_cli.__main__.program,
]
MAY_LOAD = {"audit_svc", "google", "onrecord", "recording", "service_kit"}
"""What is not the standard library's, of what `usage` loads."""
WITH_GRPC = {"cython_runtime", "grpc_health", "grpc_reflection", "grpc_tools"}
"""gRPC looks whether there are some of them, which loads nothing."""
LOOKED_AT = {
    *(() if sys.version_info >= (3, 12) else ("dis",)),  # of inspect, which dataclasses then always loads
    *("asyncio.events", "google.protobuf.internal.decoder", "grpc.aio._call"),  # what is to be loaded later
    *("importlib.resources", "logging", "pydantic", "shutil", "structlog", "typing_extensions"),
    *("audit_svc.settings", "audit_svc.sql.read.tool_calls", "audit_svc.sqlite.store", "audit_svc.terminal.remote"),
    "onrecord.audit.v1.administration_pb2",
}
"""What takes long, and `usage` needs none of."""


def commands(group: Group) -> Iterator[Command]:
    for each in [*group.commands.values(), *([group.alone] if group.alone else [])]:
        yield from commands(each) if isinstance(each, Group) else [each]


def paths(group: Group) -> Iterator[list[str]]:
    for name, each in group.commands.items():
        yield from ([name, *below] for below in paths(each)) if isinstance(each, Group) else [[name]]


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


def shared(mark: Annotated[str, Option(envvar="SAMPLE_MARK", help="A mark.")] = "") -> None:
    """Take what all commands have in common."""
    if mark == "none":
        raise BadParameter("none is no mark", param_hint="--mark")
    echo(f"mark {mark}")


@pytest.mark.parametrize(
    "words", [["--mark", "-x", "say", "ada"], ["say", "--mark", "-x", "ada"], ["say", "ada", "--mark=-x"]]
)
def test_an_option_of_all_commands_stands_before_or_behind_one(words):
    program = SAMPLE._replace(options=Command(f"{__name__}:shared", ""))
    assert invoke(program, words).stdout == "mark -x\n['ada', 'none', None, 5, True, False]\n"
    assert "--mark: none is no mark" in invoke(program, ["say", "ada", "--mark", "none"]).stderr
    assert "--mark MARK" in invoke(program, []).stderr
    assert "--mark MARK" in invoke(program, ["say", "--help"]).stdout


def marked(mark: Annotated[str, Option()] = "own") -> None:
    """Say which mark was given."""
    echo(f"its own {mark}")


def test_an_option_of_a_command_goes_before_one_of_all_commands_of_that_name():
    commands = {"say": Command(f"{__name__}:marked", "Say which mark was given.")}
    program = Program("sample", Group("A sample.", commands), Command(f"{__name__}:shared", ""))
    assert invoke(program, ["--mark", "a", "say", "--mark", "b"]).stdout == "mark a\nits own b\n"
    assert invoke(program, ["say"]).stdout == "mark \nits own own\n"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_command_says_what_it_takes(program):
    for words in paths(program.root):
        ended = invoke(program, [*words, "--help"])
        assert (ended.exit_code, ended.stderr) == (0, ""), words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage: sample"),
        (["shout"], "there is no command 'shout'"),
        (["say"], "required: NAME"),
        (["say", "nobody"], "NAME: is nobody"),
        (["say", "ada", "--limit", "0"], "0 is less than 1"),
        (["say", "ada", "--limit", "many"], "'many' is not a whole number"),
        (["say", "ada", "--tex", "short"], "unrecognized option --tex"),
        (["--unknown", "say"], "unrecognized option --unknown"),
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
    """A reading command is ready before settings, servers, gRPC and other questions would be loaded."""
    assert loaded("usage", "--db", no_ledger(tmp_path)) <= MAY_LOAD | {"apsw"}


@pytest.mark.long
def test_usage_of_a_service_loads_nothing_that_is_slow():
    """gRPC is loaded without its half for asyncio; nobody listens there."""
    assert loaded("usage", "--target", "127.0.0.1:1") <= MAY_LOAD | {"grpc", "logging"}


def test_usage_by_the_command_for_all_loads_as_little(tmp_path):
    found = loaded("usage", "--db", no_ledger(tmp_path), module="onrecord_cli")
    assert found <= MAY_LOAD | {"apsw", "gateway_svc", "intake_svc", "onrecord_cli"}


def no_ledger(folder: Path) -> str:
    """A file that is there, and that nothing can be asked of."""
    (folder / "none.db").write_text("no database", "utf-8")
    return str(folder / "none.db")


def loaded(*words: str, module: str = "audit_svc") -> set[str]:
    """What of LOOKED_AT or not of the standard library a command that fails has loaded."""
    program = (
        "import sys\n"
        f"from {module}.__main__ import program\n"
        "try:\n"
        f"    program.main({words!r})\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 1\n"
        "print(*sys.modules)\n"
        "print(*sys.stdlib_module_names)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    modules, standard = (set(line.split()) for line in ran.stdout.splitlines())
    installed = {name.partition(".")[0] for name in modules} - standard - WITH_GRPC
    return {name for name in installed if not name.startswith(("_", "sitecustomize"))} | (modules & LOOKED_AT)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_program_says_its_version(program):
    assert invoke(program, ["--version"]) == (0, f"{program.name} {version('onrecord')}\n", "")


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (-5_000, "later"),
        (400, "now"),
        (1_000, "1 s ago"),
        (119_999, "1 min ago"),
        (3_600_000, "1 h ago"),
        (200_000_000, "2 d ago"),
    ],
)
def test_an_age_is_told_in_the_largest_unit_that_it_has_whole(ms, said):
    assert ago(ms) == said
