"""What is said of an option or a command that is unknown: a hint is right, or there is none."""

import pytest

import audit_svc.__main__
import gateway_svc.__main__
import intake_svc.__main__
import onrecord_cli.__main__
from service_kit.terminal import elsewhere
from service_kit.terminal.hints import meant
from service_kit.terminal.program import Program
from tests.support.command_line import invoke

AUDIT = audit_svc.__main__.program
GATEWAY = gateway_svc.__main__.program
INTAKE = intake_svc.__main__.program
ONRECORD = onrecord_cli.__main__.program


@pytest.mark.parametrize(
    ("program", "line", "said"),
    [
        # a typo, and another word for the same
        (ONRECORD, "calls --tol bash", "--tol: is --tool meant?"),
        (AUDIT, "calls --sicne 1h", "--sicne: is --since meant?"),
        (AUDIT, "calls --before 1h", "--before: is --until meant?"),
        (ONRECORD, "stop --all --reason x", "--all: is --everything meant?"),
        (AUDIT, "export --out x", "--out: is --output meant?"),
        (AUDIT, "usage --group-by tool", "--group-by: is --by meant?"),
        (ONRECORD, "calls --user ada", "--user: is --principal meant?"),
        (ONRECORD, "sessions --person ada", "--person: is --principal meant?"),
        (AUDIT, "errors --last 5", "--last: is --since or --limit meant?"),
        # a typo of another word, and a beginning
        (AUDIT, "usage --frm 1h", "--frm: is --since meant?"),
        (AUDIT, "export --form csv", "--form: is --format meant?"),
        (AUDIT, "calls --lim 5", "--lim: is --limit meant?"),
        # an option of other commands
        (ONRECORD, "tail --since 1h", "--since: other commands take it"),
        (ONRECORD, "--since 1h calls", "--since: other commands take it"),
        (AUDIT, "usage --all", "--all: `audit-svc hold place` takes it"),
        (GATEWAY, "run --timeout 4 x", "--timeout: `gateway-svc health` takes it"),
        (ONRECORD, "run --titel x hi", "--titel: is --title meant?"),
        # letters in common are no reason
        (AUDIT, "calls --form csv", "--form"),
        (AUDIT, "calls --re x", "--re"),
        (ONRECORD, "show --sinse 1h", "--sinse"),
        (AUDIT, "calls --cost 1", "--cost"),
        (INTAKE, "setup claude --everywhere", "--everywhere"),
    ],
)
def test_an_unknown_option_is_named_with_the_one_that_is_meant_or_with_who_takes_it(
    program: Program, line: str, said: str
):
    ran = invoke(program, line.split())
    assert ran.exit_code == 2
    assert ran.stderr.splitlines()[-1].partition("unrecognized option ")[2] == said


@pytest.mark.parametrize(
    ("program", "line", "said"),
    [
        (ONRECORD, "runn hi", "'runn': is run meant?"),
        (GATEWAY, "delete", "'delete': is `gateway-svc sessions delete` meant?"),
        (AUDIT, "place", "'place': is `audit-svc hold place` meant?"),
        (ONRECORD, "ls", "'ls': is sessions meant?"),
        (ONRECORD, "serve", "'serve': is up meant?"),
        # of another program
        (ONRECORD, "erase", "'erase': use `audit-svc erase`"),
        (ONRECORD, "hold", "'hold': use `audit-svc hold place|lift|list`"),
        (ONRECORD, "rules", "'rules': use `gateway-svc rules check|test|try`"),
        (ONRECORD, "token", "'token': use `audit-svc token` or `gateway-svc token` or `intake-svc token`"),
        (ONRECORD, "stats", "'stats'"),
        (GATEWAY, "producers", "'producers': use `audit-svc producers`"),
        (AUDIT, "resume", "'resume': use `gateway-svc resume`"),
        (INTAKE, "up", "'up': use `onrecord up`"),
        # what has another name here, and no typo of one that is near
        (ONRECORD, "ui", "'ui': is open meant?"),
        (AUDIT, "open", "'open': is ui meant?"),
        (AUDIT, "up", "'up': is `audit-svc migrate up` meant?"),
        # what others have commands for
        (GATEWAY, "status", "'status': is health meant?"),
        (ONRECORD, "status", "'status': use `audit-svc health` or `gateway-svc health` or `intake-svc health`"),
        (ONRECORD, "down", "'down': ^C where `onrecord up` runs ends all"),
        (GATEWAY, "down", "'down': ^C where it runs, or SIGTERM to its process, ends it"),
        (AUDIT, "restore", "'restore': stop the service, put the backup in place (docs/operations.md#restore)"),
        (ONRECORD, "version", "'version': `onrecord --version` tells it"),
        (GATEWAY, "rules version", "'version': `gateway-svc --version` tells it"),
        (ONRECORD, "helps", "'helps': `onrecord --help` tells it"),
        (ONRECORD, "help", "'help': `onrecord --help` tells it"),
        (ONRECORD, "help run", "'help': `onrecord run --help` tells it"),
        (AUDIT, "hold help", "'help': `audit-svc hold --help` tells it"),
    ],
)
def test_an_unknown_command_is_named_with_the_one_that_is_meant(program: Program, line: str, said: str):
    ran = invoke(program, line.split())
    assert ran.exit_code == 2
    assert ran.stderr.splitlines()[-1].partition("there is no command ")[2] == said


@pytest.mark.parametrize(
    ("program", "line", "said"),
    [
        (ONRECORD, "stop everything --reason x", "everything: is --everything meant?"),
        (ONRECORD, "stop all --reason x", "all: is --everything meant?"),
        (GATEWAY, "stop tool bash --reason x", "tool bash: is --tool meant?"),
        (ONRECORD, "run What time is it", "time is it: PROMPT is one argument, in quotes if it has spaces"),
        (ONRECORD, "stops now", "now"),
    ],
)
def test_a_word_too_many_is_named_with_the_option_that_is_meant_or_with_what_takes_one(
    program: Program, line: str, said: str
):
    ran = invoke(program, line.split())
    assert ran.exit_code == 2
    assert ran.stderr.splitlines()[-1].partition("unrecognized arguments: ")[2] == said


@pytest.mark.parametrize("option", ["--engine", "--tool", "--principal", "--agent", "--label"])
def test_a_stop_of_an_empty_name_is_refused_by_its_option(option: str):
    ran = invoke(ONRECORD, ["stop", option, "", "--reason", "x"])
    assert ran.exit_code == 2
    assert ran.stderr.endswith(f"argument {option}: is empty: leave it out, or give a value\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("approve", "ID: is empty: give a value"),
        ("deny --reason x", "ID: is empty: give a value"),
        ("resume --reason x", "ID: is empty: give an id, or @last"),
        ("transcript", "SESSION: is empty: give an id, or @last"),
        ("sessions delete", "SESSION: is empty: give an id, or @last"),
        ("sessions export", "SESSION: is empty: give an id, or @last"),
        ("token --role caller", "NAME: is empty: give a value"),
        ("show", "SESSION: is empty: give an id, or @last"),
    ],
)
def test_an_empty_argument_is_refused_by_its_name(line: str, said: str):
    ran = invoke(AUDIT if line == "show" else GATEWAY, [*line.split(), ""])
    assert ran.exit_code == 2
    assert ran.stderr.endswith(f"argument {said}\n")


def test_what_another_program_does_is_named_with_the_options_that_point_it_here(monkeypatch):
    monkeypatch.setitem(elsewhere.places, "audit-svc", {"--target": "127.0.0.1:7", "--db": "/x/audit.db"})
    for line, said in (
        ("hold", ": use `audit-svc hold place|lift|list --target 127.0.0.1:7`"),
        ("vacuum", ": use `audit-svc vacuum --db /x/audit.db`"),
    ):
        assert said in invoke(ONRECORD, [line]).stderr


def test_a_command_that_cannot_be_loaded_hides_no_other_and_only_commands_are_loaded(tmp_path, monkeypatch):
    installed = tmp_path / "onrecord-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: onrecord\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(
        "[console_scripts]\na-missing = nowhere.to_be_found:main\naudit-svc = audit_svc.__main__:main\n"
        "[another.group]\nx = gateway_svc.__main__:main\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(elsewhere._installed()) == [AUDIT]


@pytest.mark.parametrize(
    ("typed", "known", "said"),
    [
        ("GATEWAY_OLAMA_URL", {"GATEWAY_OLLAMA_URL", "GATEWAY_OPENAI_URL"}, ": is GATEWAY_OLLAMA_URL meant?"),
        ("GATEWAY_MODEL_URL", {"GATEWAY_OLLAMA_URL", "GATEWAY_OPENAI_URL"}, ""),
        ("--tabel", {"--limit", "--table"}, ": is --table meant?"),
        ("--mat", {"--cat", "--map"}, ""),  # two are as near
        ("--db", {"--by", "-h", "--ca"}, ""),
        ("all", {"everything"}, ""),  # a word for an option, and for nothing else
    ],
)
def test_a_hint_takes_a_typo_and_not_letters_in_common(typed: str, known: set[str], said: str):
    assert meant(typed, known) == said
