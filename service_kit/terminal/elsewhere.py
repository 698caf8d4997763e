"""How a program names commands that it does not have, and another program has."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from shlex import quote
from typing import TYPE_CHECKING

from service_kit.terminal.parameters import Parameters

if TYPE_CHECKING:
    from service_kit.terminal.program import Command, Group, Program

DOWN = "^C where it runs, or SIGTERM to its process, ends it"
"""What is done otherwise than by a command, of a service."""
_OF_SERVICES = {
    "onrecord": "up open agents completion",
    "gateway-svc": "run chat change engines transcript approvals approve deny stop stops resume tools rules",
    "audit-svc": "calls requests errors show usage controls queries tail compare export producers backup copy check "
    "verify proof seal prune erase hold rebuild-rollups rebuild-texts vacuum ui migrate",
    "intake-svc": "setup",
}
"""Which program has a command, for those that may not load each other; a test compares it with what they have."""
places: dict[str, Mapping[str, str]] = {}
"""By another program's name: the options that make its commands work on what this one works on, the best first."""


def who_does(name: str, others: "Sequence[Program]") -> str:
    """The end of a sentence on a command that only other programs have; empty if none has it."""
    found = [
        _line(program.name, name, each) for program in others if (each := program.root.commands.get(name)) and each.help
    ]
    found = found or [f"`{program} {name}`" for program, names in _OF_SERVICES.items() if name in names.split()]
    return f": {' or '.join(found)} does it" if found else ""


def _line(program: str, name: str, each: "Command | Group") -> str:
    below = getattr(each, "commands", None)
    words = [program, name, *(["|".join(below)] if below else [])]
    taken = _options_of(next(_leaves(each)))
    for option, value in places.get(program, {}).items():
        if option in taken:
            words += [option, quote(value)]
            break
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
