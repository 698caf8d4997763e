"""A program of commands, each in a module that is loaded when the command runs."""

import argparse
import errno
import importlib
import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from service_kit.terminal.command import BadParameter, Exit, echo
from service_kit.terminal.elsewhere import who_does
from service_kit.terminal.failures import Failed, asks_for_json, tell
from service_kit.terminal.hints import meant, nearest, stands_for
from service_kit.terminal.later import loaded_later
from service_kit.terminal.parameters import Function, Parameters
from service_kit.terminal.printing import put_stderr_in_json, stderr_is_json, terminal_width

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
COMPLETE = "--complete"
"""What a shell's completion calls a program with, before the words so far."""
OPTIONS = "access to a running service"
"""The title of the options that may stand ahead of a command."""
_NAMED = 3
"""So many commands that take an option are named, and none where there are more."""
_NOT_WRITTEN = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class Command(NamedTuple):
    """A command: where its function is, "module:name", and its line in the list; one without is not listed."""

    function: str
    help: str
    given: Mapping[str, Any] = MappingProxyType({})
    """Parameters that the program gives."""
    is_service: bool = False
    """Whether it has threads and an event loop, so that nothing is loaded later (service_kit.terminal.later)."""

    def load(self) -> Function:
        """The function, with its module."""
        module, _, name = self.function.partition(":")
        loaded: Function = getattr(importlib.import_module(module), name)
        return loaded


class Group(NamedTuple):
    """Commands below one name. alone: what runs where none of them is named."""

    help: str
    commands: Mapping[str, "Command | Group"]
    alone: Command | None = None


class Program(NamedTuple):
    """A program: its name, its commands, and the function that takes the options that may stand ahead of all of them,
    and behind.
    """

    name: str
    root: Group
    options: Command | None = None
    told: Mapping[str, str] = MappingProxyType({})
    """What is done otherwise than by a command, by the words that somebody may type for it."""

    def main(self, words: Sequence[str] | None = None) -> NoReturn:
        """Runs the command line, words or that of the process. Where stdout cannot be written, a sentence says so.

        Raises:
            SystemExit: always, with the exit code.
        """
        if sys.stdout is None or sys.stderr is None:  # closed by who called it: nobody listens
            nobody = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - without an import; as long as the process
            sys.stdout, sys.stderr = sys.stdout or nobody, sys.stderr or nobody
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding than rows have
        words = list(sys.argv[1:] if words is None else words)
        put_stderr_in_json(asks_for_json(words))
        try:
            try:
                self._run(words)
            finally:
                sys.stdout.flush()
        except Exit as ended:
            _end(ended)
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno not in _NOT_WRITTEN:
                raise
            # What is left in the buffer must not fail once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno != errno.EPIPE:
                tell(Failed(f"stdout cannot be written: {error.strerror}"))
            raise SystemExit(1) from None
        raise SystemExit(0)

    def _run(self, words: list[str]) -> None:
        if words[:1] == [COMPLETE]:
            from service_kit.terminal.completing import candidates

            for candidate in candidates(self, words[1:]):
                echo(candidate)
            return
        parser = parser_of(self.name, self.root.help, self.root.commands)
        parser.who_takes = self._who_takes
        parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
        options = typed = None
        if self.options:
            options = Parameters(self.options.load(), parser, {}, OPTIONS)
            words = options.joined(words)
        at = next((at for at, word in enumerate(words) if not word.startswith("-")), len(words))
        head, rest = words[:at], words[at:]
        typed = options.parse(head) if options else vars(parser.parse_args(head))
        self._choose(self.name, self.root, rest, parser, typed)

    def _choose(
        self, path: str, group: Group, words: list[str], parser: argparse.ArgumentParser, typed: Mapping[str, Any]
    ) -> None:
        chosen = group.commands.get(words[0]) if words else None
        if chosen is None and group.alone:
            self._run_command(path, group.alone, words, typed, group.commands)
        elif chosen is None:
            if not words:
                parser.print_help(sys.stderr)
                raise Exit(EXIT_USAGE)
            parser.parse_args(words if words[0].startswith("-") else [])
            hint = next(filter(None, self._hints(path, group, words)), "")
            parser.error(f"there is no command {words[0]!r}{hint}")
        elif isinstance(chosen, Group):
            path = f"{path} {words[0]}"
            self._choose(path, chosen, words[1:], parser_of(path, chosen.help, chosen.commands), typed)
        else:
            self._run_command(f"{path} {words[0]}", chosen, words[1:], typed)

    def _run_command(
        self,
        path: str,
        command: Command,
        words: list[str],
        typed: Mapping[str, Any],
        others: Mapping[str, Command | Group] | None = None,
    ) -> None:
        with nullcontext() if command.is_service else loaded_later():
            function = command.load()
            parser = parser_of(path, _told_of(function) or command.help, others or {})
            parser.who_takes = self._who_takes
            parameters = Parameters(function, parser, command.given)
            options = Parameters(self.options.load(), parser, {}, OPTIONS) if self.options else None
            if options:
                options.keep(typed)
            try:
                values = parameters.parse(words, options)
                if options:
                    options.call(values)
                parameters.call(values)
            except BadParameter as error:
                _refuse(parser, error)

    def _hints(self, path: str, group: Group, words: list[str]) -> Iterator[str]:
        """What may end a sentence on a first word that is no command, the likeliest first; some are empty."""
        typed, own = words[0], stands_for(words[0])
        yield f": is {own} meant?" if own in group.commands else ""
        yield self._named_so(typed)
        yield who_does(typed, group.commands)
        yield meant(typed, group.commands)
        yield who_does(own, group.commands)
        if nearest(typed, ["help"]):
            of = " ".join([path, *(word for word in words[1:2] if word in group.commands)])
            yield f": `{of} --help` tells it"
        if nearest(typed, ["version"]):
            yield f": `{self.name} --version` tells it"
        yield f": {self.told[typed]}" if typed in self.told else ""

    def _named_so(self, name: str) -> str:
        """The end of a sentence on a name that is no command here, but one below."""
        found = [f"`{path}`" for path, _ in _commands(self.name, self.root) if path.endswith(f" {name}")]
        return f": is {' or '.join(found)} meant?" if found else ""

    def _who_takes(self, option: str) -> str:
        """See _Parser.who_takes."""
        found = list[str]()
        for path, command in _commands(self.name, self.root):
            with suppress(ImportError):  # of an extra that is not installed
                parser = parser_of(path, "")
                Parameters(command.load(), parser, command.given)
                if option in parser._option_string_actions:
                    found.append(f"`{path}`")
        if len(found) > _NAMED:
            return ": other commands take it"
        *others, last = found or [""]
        listed = f"{', '.join(others)} and {last}" if others else last
        return f": {listed} {'take' if others else 'takes'} it" if last else ""


def _commands(path: str, group: Group) -> Iterator[tuple[str, Command]]:
    """The commands that are listed, with their paths."""
    for name, each in group.commands.items():
        if isinstance(each, Group):
            yield from [(f"{path} {name}", each.alone)] if each.alone else []
            yield from _commands(f"{path} {name}", each)
        elif each.help:
            yield f"{path} {name}", each


def run(function: Function) -> NoReturn:
    """Runs a program of one command. Raises SystemExit with the exit code."""
    put_stderr_in_json(asks_for_json(sys.argv[1:]))
    parser = parser_of(os.path.basename(sys.argv[0]), _told_of(function))  # noqa: PTH119
    parameters = Parameters(function, parser, {})
    try:
        try:
            parameters.call(parameters.parse(sys.argv[1:]))
        except BadParameter as error:
            _refuse(parser, error)
    except Exit as ended:
        _end(ended)
    raise SystemExit(0)


def _end(ended: Exit) -> NoReturn:
    if isinstance(ended, Failed):
        tell(ended)
    raise SystemExit(ended.code) from None


def _refuse(parser: argparse.ArgumentParser, error: BadParameter) -> NoReturn:
    parser.error(f"{error.param_hint}: {error.message}" if error.param_hint else error.message)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line as all that goes wrong is said."""

    who_takes: Callable[[str], str] = staticmethod(lambda option: "")
    """The end of a sentence on an option that the command does not take, but others of the program."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: -"):
            typed = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
            # What is left of the line behind it may be a value of it, or none.
            hint = meant(typed, self._option_string_actions) or self.who_takes(typed)
            message = f"unrecognized option {typed}{hint}"
        elif message.startswith("unrecognized arguments: "):
            typed = message.removeprefix("unrecognized arguments: ").split()[0]
            one = next((each.metavar for each in self._actions if not each.option_strings and each.nargs != "*"), None)
            in_quotes = f": {one} is one argument, in quotes if it has spaces" if one else ""
            message += meant(f"--{typed}", self._option_string_actions) or in_quotes
        if stderr_is_json():
            raise Failed(message, EXIT_USAGE, fields={"code": "INVALID_ARGUMENT"})
        self.print_usage(sys.stderr)
        raise Failed(f"{self.prog}: {message}", EXIT_USAGE)


def _told_of(function: Function) -> str:
    """The docstring, without the blanks that it is indented by."""
    first, _, rest = (function.__doc__ or "").partition("\n")
    return f"{first.strip()}\n{textwrap.dedent(rest)}".strip()


class _Version(argparse.Action):
    """Says the version, which is looked up where somebody asks for it: that takes long."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        from importlib.metadata import version

        echo(f"{parser.prog} {version('onrecord')}")
        raise Exit


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse makes one for each option, which asks for the terminal's width by a module that takes long to load."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(terminal_width(sys.stdout) or 80, 120) - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_filled(text.splitlines(), width))


def _filled(lines: list[str], width: int) -> Iterator[str]:
    """Paragraphs anew for the width, and a list's lines each by itself, beneath what it tells of."""
    for is_listed, group in groupby(lines, key=lambda line: not line or line.startswith(" ")):
        for line in group if is_listed else [" ".join(group)]:
            told_at = line.find("  ", len(line) - len(line.lstrip())) + 1
            beneath = " " * (told_at + len(line[told_at:]) - len(line[told_at:].lstrip())) if told_at else ""
            yield from textwrap.wrap(line, width, subsequent_indent=beneath, break_on_hyphens=False) or [""]


def parser_of(path: str, description: str, commands: Mapping[str, Command | Group] | None = None) -> "_Parser":
    """Argparse's parser of a command, without what it takes."""
    shown = {name: command.help for name, command in (commands or {}).items() if command.help}
    width = max(map(len, shown), default=0)
    lines = [f"  {name:{width}}  {told}" for name, told in shown.items()]
    return _Parser(
        path,
        usage=f"{path} [OPTIONS] COMMAND ..." if lines else None,
        description=description,
        epilog="\n".join(["commands:", *lines]) if lines else None,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
