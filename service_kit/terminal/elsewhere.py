"""How a program names commands that it does not have, and another program has."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from shlex import quote
from typing import TYPE_CHECKING

from service_kit.terminal.parameters import Parameters

if TYPE_CHECKING:
    from service_kit.terminal.program import Command, Group, Program

DOWN = "^C where it runs, or SIGTERM to its process, ends it"
"""What is done otherwise than by a command, of a service."""
places: dict[str, Mapping[str, str]] = {}
"""By another program's name: what makes its commands work on what this one works on, options, the best first, and
variables.
"""


def who_does(name: str, known: "Mapping[str, Command | Group]") -> str:
    """The end of a sentence on a command that other programs have; empty if none has it.

    Services before `onrecord`, which has much of what they have. known: the program's own, which may have it by another
    name.
    """
    found = [(each, p) for p in _installed() if (each := p.root.commands.get(name)) and each.help]
    if same := [own for own, each in known.items() if any(each == other for other, _ in found)]:
        return f": is {' or '.join(same)} meant?"
    services = [(each, p) for each, p in found if "serve" in p.root.commands]
    lines = [_line(p.name, name, each) for each, p in services or found]
    return f": use {' or '.join(lines)}" if lines else ""


def _installed() -> "Iterator[Program]":
    """The programs that are installed together. No service imports another: this is for who mistyped a command."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        scripts = distribution("onrecord").entry_points.select(group="console_scripts")
    except PackageNotFoundError:  # nothing is installed
        return
    for script in sorted(scripts):
        with suppress(ImportError):  # of what is not installed
            if program := getattr(import_module(script.module), "program", None):
                yield program


def _line(program: str, name: str, each: "Command | Group") -> str:
    below = getattr(each, "commands", None)
    words = [program, name, *(["|".join(below)] if below else [])]
    if here := places.get(program):
        leaf = next(_leaves(each))
        taken, variable = _options_of(leaf), str(leaf.given.get("variable", ""))
        option = next((option for option in here if option in taken), None)
        words += [option, quote(here[option])] if option else []
        words[:0] = [f"{variable}={quote(here[variable])}"] if variable in here else []
    return f"`{' '.join(words)}`"


def _options_of(command: "Command") -> set[str]:
    from service_kit.terminal.program import parser_of

    parser = parser_of("", "")
    with suppress(ImportError):  # of an extra that is not installed
        Parameters(command.load(), parser, command.given)
    return set(parser._option_string_actions)


def _leaves(each: "Command | Group") -> "Iterator[Command]":
    """The commands of a group; a command itself."""
    commands: Mapping[str, Command | Group] | None = getattr(each, "commands", None)
    if commands is None:
        yield each  # type: ignore[misc] # what has no commands is one
        return
    for below in commands.values():
        yield from _leaves(below)
