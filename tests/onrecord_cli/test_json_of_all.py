"""Every command of all programs answers programs: results as JSON by --json, and errors too."""

import argparse
import json
from collections.abc import Iterator

import pytest

from audit_svc.__main__ import program as audit_svc
from gateway_svc.__main__ import program as gateway_svc
from intake_svc.__main__ import program as intake_svc
from onrecord_cli.__main__ import program as onrecord
from service_kit.access.token_command import token
from service_kit.terminal.parameters import Parameters
from service_kit.terminal.program import Command, Group, Program
from tests.support.command_line import invoke

PROGRAMS = (onrecord, gateway_svc, audit_svc, intake_svc)
OTHERWISE = {
    "audit_svc.terminal.export:export": "has --format",
    "audit_svc.terminal.ui:ui": "serves pages until it is interrupted",
    "intake_svc.setup.command:setup": "prints the configuration of an agent, in that one's format",
    "service_kit.terminal.completing:completion": "prints a shell's program",
}


def commands(group: Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    if group.alone:
        yield words, group.alone
    for name, found in group.commands.items():
        if isinstance(found, Group):
            yield from commands(found, (*words, name))
        else:
            yield (*words, name), found


ALL = [
    pytest.param(program, words, command, id=" ".join((program.name, *words)))
    for program in PROGRAMS
    for words, command in commands(program.root)
    if not command.is_service and command.function not in OTHERWISE
]


@pytest.mark.long
@pytest.mark.parametrize(("program", "words", "command"), ALL)
def test_a_command_takes_json_and_says_so_of_what_is_wrong(program: Program, words: tuple[str, ...], command: Command):
    parser = argparse.ArgumentParser()
    Parameters(command.load(), parser, command.given)
    assert any("--json" in action.option_strings for action in parser._actions), "it has no --json"
    told = invoke(program, [*words, "--json", "--no-such-option"])
    assert (told.exit_code, told.stdout) == (2, "")
    (line,) = told.stderr.splitlines()
    assert line.isprintable()
    error = json.loads(line)["error"]
    assert (error["code"], error["exit_code"]) == ("INVALID_ARGUMENT", 2)
    assert isinstance(error["message"], str)
    assert invoke(program, [*words, "--no-such-option"]).stderr.startswith("usage: ")


def test_what_is_left_out_is_there():
    known = {command.function for program in PROGRAMS for _, command in commands(program.root)}
    assert OTHERWISE.keys() <= known
    assert token.__module__ in {function.partition(":")[0] for function in known}


def test_a_token_and_what_lets_it_in_are_one_object():
    told = invoke(gateway_svc, ["token", "ada", "--role", "caller", "--json"])
    made = json.loads(told.stdout)
    assert (told.exit_code, told.stderr, made.keys()) == (0, "", {"token", "table"})
    assert 'name = "ada"' in made["table"]


def test_a_service_that_does_not_answer_is_told_in_json():
    for program, peer in ((gateway_svc, "a gateway"), (audit_svc, "an audit service"), (intake_svc, "a door")):
        told = invoke(program, ["health", "--target", "127.0.0.1:1", "--json"])
        answer = json.loads(told.stdout)
        assert (told.exit_code, answer["serves"]) == (1, False)
        nobody = f"nobody listens on 127.0.0.1:1: is {peer} running there? --target or "
        assert answer["said"].startswith(nobody)
