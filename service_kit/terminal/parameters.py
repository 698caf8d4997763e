"""A command's parameters as argparse has them, read from its signature."""

import argparse
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from service_kit.terminal.command import Argument, Filled, Option, Options

Function = Callable[..., None]

_REQUIRED = object()
"""The default of a parameter that has none."""


class Parameters:
    """The parameters of one command."""

    def __init__(
        self, function: Function, parser: argparse.ArgumentParser, given: Mapping[str, Any], title: str = ""
    ) -> None:
        """Adds them to parser. given: parameters that nobody can type.

        title: of what all commands have in common; a command's own option of the same name goes before.
        """
        self._function, self._parser, self._given = function, parser, given
        self._shown = parser.add_argument_group(title) if title else parser
        self._prefix = "of all commands " if title else ""
        self._taken = {word for action in parser._actions for word in action.option_strings}
        self._names: list[str] = []
        self._groups: dict[str, tuple[type[Options], list[str]]] = {}
        self._valued: set[str] = set()
        self._filled: dict[str, str] = {}
        """What leaving them out is for, by the names of options that must not be empty."""
        self.known: dict[str, str] = {}
        """Functions that list values, by argparse's names of the parameters."""
        hints = get_type_hints(function, include_extras=True)
        for name, default in _defaults(function).items():
            hint = hints[name]
            if name in given:
                continue
            if isinstance(hint, type) and issubclass(hint, Options):
                shared = get_type_hints(hint, include_extras=True)
                self._groups[name] = (hint, list(shared))
                for field, described in shared.items():
                    self._add(field, described, getattr(hint, field))
            else:
                self._add(name, hint, default)

    def parse(self, words: Sequence[str], also: "Parameters | None" = None) -> dict[str, Any]:
        """What was typed, by the parameters' names. also: others of the same parser, whose values are in it too."""
        joined = [*_joined(iter(words), self._valued | (also._valued if also else set()))]
        for word in joined[: joined.index("--")] if "--" in joined else joined:
            name, sign, value = word.partition("=")
            if sign and not value and name in self._filled:
                self._parser.error(f"argument {name}: is empty: leave it out{self._filled[name]}, or give a value")
        return vars(self._parser.parse_args(joined))

    def call(self, typed: Mapping[str, Any]) -> None:
        """Calls the command with what was typed."""
        values = {name: typed[self._prefix + name] for name in self._names} | dict(self._given)
        for name, (group, names) in self._groups.items():
            values[name] = group(**{field: values.pop(field) for field in names})
        self._function(**values)

    def keep(self, typed: Mapping[str, Any]) -> None:
        """Makes what was typed the defaults, for a second place where the same may be typed."""
        self._parser.set_defaults(**{self._prefix + name: typed[self._prefix + name] for name in self._names})

    def joined(self, words: Sequence[str]) -> list[str]:
        """Words with each option and its value as one, since a value may begin with a dash."""
        return list(_joined(iter(words), self._valued))

    def _add(self, name: str, hint: Any, default: Any) -> None:
        hint, option = _described(hint)
        self._names.append(name)
        is_required = default is _REQUIRED
        kind, is_list = _kind(hint)
        if option.known:
            self.known[name if isinstance(option, Argument) else self._prefix + name] = option.known
        told: dict[str, Any] = {"help": _help(option, default).replace("%", "%%"), "dest": self._prefix + name}
        if option.metavar:
            told["metavar"] = option.metavar
        if kind is not bool:
            told |= _conversion(kind, option)
        if isinstance(option, Argument):
            del told["dest"]
            told.setdefault("metavar", name.upper())
            told["nargs"] = "*" if is_list else None if is_required else "?"
            if kind is str and is_required:
                told["type"] = _filled(option.empty)
            self._shown.add_argument(name, **told, default=None if is_required else default)
            return
        names = option.names or (f"--{name.replace('_', '-')}",)
        if self._prefix:
            told.setdefault("metavar", name.upper())
            if set(names) & self._taken:
                return
        if kind is bool:
            action = "store_true" if option.names else argparse.BooleanOptionalAction
            self._shown.add_argument(*names, action=action, default=default, **told)
            return
        self._valued.update(names)
        if isinstance(option, Filled):
            self._filled |= dict.fromkeys(names, option.without)
        if variable := option.envvar and os.environ.get(option.envvar, ""):
            default, is_required = variable, False
        if is_list:
            told["action"] = "append"
        self._shown.add_argument(*names, default=None if is_required else default, required=is_required, **told)


def _defaults(function: Function) -> dict[str, Any]:
    """The parameters with their defaults. (inspect.signature says it too, and takes long to load.)"""
    assert isinstance(function, FunctionType)  # noqa: S101
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    return dict.fromkeys(names, _REQUIRED) | dict(zip(reversed(names), reversed(defaults), strict=False))


def _joined(words: Iterator[str], valued: Collection[str]) -> Iterator[str]:
    for word in words:
        if word == "--":
            yield word
            yield from words
        elif word in valued and (value := next(words, None)) is not None:
            yield f"{word}={value}"
        else:
            yield word


def _described(hint: Any) -> tuple[Any, Option]:
    if get_origin(hint) is not Annotated:
        return hint, Argument()
    hint, *notes = get_args(hint)
    return hint, next(note for note in notes if isinstance(note, Option))


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there are several."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is list:
        return get_args(hint)[0], True
    return hint, False


def _conversion(kind: Any, option: Option) -> dict[str, Any]:
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if issubclass(kind, Enum):
        return {"type": _member(kind), "metavar": option.metavar or f"{{{','.join(each.value for each in kind)}}}"}
    if issubclass(kind, Path):
        return {"type": _path}
    return {"type": _within(kind, option) if kind in (int, float) else kind}


def _member(kind: type[Enum]) -> Callable[[str], Enum]:
    def convert(text: str) -> Enum:
        try:
            return kind(text)
        except ValueError:
            names = ", ".join(repr(each.value) for each in kind)
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {names}") from None

    return convert


def _filled(advice: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not text:
            raise argparse.ArgumentTypeError(f"is empty: {advice}")
        return text

    return convert


def _path(text: str) -> Path:
    """Of an empty text pathlib makes the folder in which the program runs."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a path")
    return Path(text)


def _within(kind: type[int | float], option: Option) -> Callable[[str], int | float]:
    def convert(text: str) -> int | float:
        try:
            number = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not (option.min is None or number >= option.min):
            raise argparse.ArgumentTypeError(f"{text} is less than {option.min:g}")
        if not (option.max is None or number <= option.max):
            raise argparse.ArgumentTypeError(f"{text} is more than {option.max:g}")
        return number

    return convert


def _help(option: Option, default: Any) -> str:
    told = [option.help] if option.help else []
    if option.envvar:
        told.append(f"[{option.envvar}]")
    if default not in (None, "", False, _REQUIRED) and not isinstance(option, Argument):
        told.append(f"[default: {default.value if isinstance(default, Enum) else default}]")
    return " ".join(told)
