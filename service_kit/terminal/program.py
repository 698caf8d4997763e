"""A program of commands, each in a module that is loaded when the command runs."""

import argparse
import errno
import importlib
import inspect
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from service_kit.terminal.command import BadParameter, Exit, echo
from service_kit.terminal.parameters import Function, Parameters

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_NOT_WRITTEN = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@dataclass(frozen=True, slots=True)
class Command:
    """A command: where its function is, "module:name", and its line in the list; one without is not listed."""

    function: str
    help: str
    given: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that the program gives."""

    def load(self) -> Function:
        """The function, with its module."""
        module, _, name = self.function.partition(":")
        loaded: Function = getattr(importlib.import_module(module), name)
        return loaded


@dataclass(frozen=True, slots=True)
class Group:
    """Commands below one name. alone: what runs where none of them is named."""

    help: str
    commands: Mapping[str, "Command | Group"]
    alone: Command | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A program: its name, its commands, and the function that takes the options ahead of them."""

    name: str
    root: Group
    options: Command | None = None

    def main(self, words: Sequence[str] | None = None) -> NoReturn:
        """Runs the command line, words or that of the process. Where stdout cannot be written, a sentence says so.

        Raises:
            SystemExit: always, with the exit code.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding than rows have
        try:
            try:
                self._run(list(sys.argv[1:] if words is None else words))
            finally:
                sys.stdout.flush()
        except Exit as ended:
            raise SystemExit(ended.code) from None
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno not in _NOT_WRITTEN:
                raise
            # What is left in the buffer must not fail once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno != errno.EPIPE:
                echo(f"{self.name}: stdout cannot be written: {error.strerror}", err=True)
            raise SystemExit(1) from None
        raise SystemExit(0)

    def _run(self, words: list[str]) -> None:
        parser = _parser(self.name, self.root.help, self.root.commands)
        if self.options:
            options = Parameters(self.options.load(), parser, self.options.given)
            words = options.joined(words)
        at = next((at for at, word in enumerate(words) if not word.startswith("-")), len(words))
        head, rest = words[:at], words[at:]
        if self.options:
            _guarded(options, parser, head)
        else:
            parser.parse_args(head)
        self._choose(self.name, self.root, rest)

    def _choose(self, path: str, group: Group, words: list[str]) -> None:
        chosen = group.commands.get(words[0]) if words else None
        if chosen is None and group.alone:
            _run_command(path, group.alone, words, group.commands)
        elif chosen is None:
            parser = _parser(path, group.help, group.commands)
            if not words:
                parser.print_help(sys.stderr)
                raise Exit(EXIT_USAGE)
            parser.parse_args(words if words[0].startswith("-") else [])
            parser.error(f"there is no command {words[0]!r}")
        elif isinstance(chosen, Group):
            self._choose(f"{path} {words[0]}", chosen, words[1:])
        else:
            _run_command(f"{path} {words[0]}", chosen, words[1:])


def run(function: Function) -> NoReturn:
    """Runs a program of one command. Raises SystemExit with the exit code."""
    parser = _parser(os.path.basename(sys.argv[0]), inspect.getdoc(function) or "")  # noqa: PTH119
    try:
        _guarded(Parameters(function, parser, {}), parser, sys.argv[1:])
    except Exit as ended:
        raise SystemExit(ended.code) from None
    raise SystemExit(0)


def _run_command(
    path: str, command: Command, words: list[str], others: Mapping[str, Command | Group] | None = None
) -> None:
    function = command.load()
    parser = _parser(path, inspect.getdoc(function) or command.help, others or {})
    _guarded(Parameters(function, parser, command.given), parser, words)


def _guarded(parameters: Parameters, parser: argparse.ArgumentParser, words: list[str]) -> None:
    try:
        parameters.run(words)
    except BadParameter as error:
        parser.error(f"{error.param_hint}: {error.message}" if error.param_hint else error.message)


def _parser(
    path: str, description: str, commands: Mapping[str, Command | Group] | None = None
) -> argparse.ArgumentParser:
    shown = {name: command.help for name, command in (commands or {}).items() if command.help}
    width = max(map(len, shown), default=0)
    lines = [f"  {name:{width}}  {told}" for name, told in shown.items()]
    return argparse.ArgumentParser(
        path,
        usage=f"{path} [OPTIONS] COMMAND ..." if lines else None,
        description=description,
        epilog="\n".join(["commands:", *lines]) if lines else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
