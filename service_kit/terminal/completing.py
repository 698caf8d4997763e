"""What a shell may complete: commands, options, and values that are known."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import TYPE_CHECKING, Annotated, Any, Literal

from service_kit.terminal.command import Argument, echo
from service_kit.terminal.parameters import Parameters

if TYPE_CHECKING:
    from service_kit.terminal.program import Command, Program

_SCRIPTS = {
    "bash": """_{name}() {{
    local IFS=$'\\n'
    COMPREPLY=($({program} --complete "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null))
}}
complete -o default -F _{name} {program}""",
    "zsh": """_{name}() {{
    local -a found
    found=("${{(@f)$({program} --complete "${{(@)words[2,CURRENT]}}" 2>/dev/null)}}")
    compadd -a found
}}
compdef _{name} {program}""",
    "fish": """complete -c {program} -a \\
    '({program} --complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'""",
}


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Argument(help="Which shell.")], program: str) -> None:
    """Print what makes a shell complete commands, options and values.

    For bash and zsh: eval "$(onrecord completion bash)"; for fish: onrecord completion fish | source.
    """
    echo(_SCRIPTS[shell].format(program=program, name=program.replace("-", "_")))


def candidates(program: "Program", words: Sequence[str]) -> list[str]:
    """What may stand in the place of the last of words, the beginning of which it is."""
    *before, last = words or [""]
    chosen: Any = program.root
    while True:
        commands = getattr(chosen, "commands", {})
        at = next((at for at, word in enumerate(before) if word in commands), None)
        if at is None:
            break
        chosen, before = commands[before[at]], before[at + 1 :]
    found = [name for name, command in commands.items() if command.help] if not before else []
    command = chosen.alone if commands else chosen
    with redirect_stderr(StringIO()), suppress(SystemExit):
        found += _of_command(program, command, before, last)
    return [each for each in dict.fromkeys(found) if each.startswith(last) and (last or not each.startswith("-"))]


def _of_command(program: "Program", command: "Command | None", before: list[str], last: str) -> Iterator[str]:
    from service_kit.terminal.program import OPTIONS, parser_of

    parser = parser_of(program.name, "")
    shared = Parameters(program.options.load(), parser, {}, OPTIONS) if program.options else None
    known = dict(shared.known) if shared else {}
    if command:
        parser = parser_of(program.name, "")
        known |= Parameters(command.load(), parser, command.given).known
        if program.options:
            Parameters(program.options.load(), parser, {}, OPTIONS)
    takes_value = {name: action for action in parser._actions for name in action.option_strings if action.nargs is None}
    asked = takes_value.get(before[-1]) if before else None
    if asked is None and last.startswith("-"):
        yield from (name for action in parser._actions for name in action.option_strings)
        return
    for action in [asked] if asked else [each for each in parser._actions if not each.option_strings]:
        yield from map(str, action.choices or ())
        if action.dest in known:
            module, _, name = known[action.dest].partition(":")
            yield from getattr(importlib.import_module(module), name)()
