"""Summarises a call's arguments for the record: a few fields per tool are shown, all others by name, type and size."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from itertools import islice
from math import isfinite
from typing import Any

from recording import compact_json
from recording.compact_json import NOT_READ, TOO_MANY, has_too_many_values
from recording.redact import exact
from recording.redact.commands import without_content
from recording.redact.fit import cut, fold
from recording.redact.outline import outline
from recording.redact.randomness import LONGEST_NAME, is_name
from recording.redact.text import redact, redact_own, redact_text
from recording.redact.urls import without_values
from recording.show import Arguments, Show

MAX_BYTES = 4_096
"""The ledger's limit; most summaries are under 200 bytes."""

# Linux passes no longer argument to a program, so a longer command would not run.
_MAX_COMMAND = 32_768
_MAX_URL = 16_384
_MAX_REMEMBERED = 256
_MOST_REMEMBERED = 1_024
_LONG_SPACE = re.compile(r"[ \t\n]{9,}")
_MAX_NAMED = 12
_PATH_PART = re.compile(r"[^/]+")

_Show = Callable[[Any], Any]
_encode = compact_json.encoder()


def summarize_args(
    tool_name: str,
    arguments: str,
    parameters: Collection[str] | None = None,
    *,
    kept: Arguments | None = None,
    value: Any = NOT_READ,
) -> str:
    """Turns arguments, JSON as a model wrote it, into compact JSON of at most MAX_BYTES without content or secrets.

    Fields that show_fields() named are shown, redacted and truncated. All others, and all those of an unknown tool, are
    shown by type and size, unless the tool is known to have no such parameter, by show_fields() or because it is not
    among `parameters`: a name that a model made up may be content, so it is only counted. For text that is not a JSON
    object, or has more values than are read (compact_json.MAX_VALUES), `$malformed` has the size.

    kept: what is kept at most; keep_arguments() says it when not given. With `names`, commands show programs,
    subcommands and flags, and paths the number of their parts; all else its type and size. With `none`, `$arguments`
    has the number and the size of all.

    value: what compact_json.read() gave for the arguments, where they were read before.
    """
    kept = kept or _kept
    if type(value) is not dict:
        value, malformed = _read(arguments, value)
        if malformed:
            return _encode(malformed)
    if kept == "none":
        return _encode({"$arguments": {"count": len(value), "bytes": _size(arguments)}})
    shown = (_shown if kept == "shown" else _named).get(tool_name, {})
    summary = {name: show(value[name]) for name, show in shown.items() if name in value}
    if len(summary) < len(value) and tool_name not in _complete:
        others = (name for name in value if name not in shown and (parameters is None or name in parameters))
        for name in islice(others, _MAX_NAMED):
            if len(name) <= LONGEST_NAME and (redacted := _argument_name(exact.version(), name)):
                summary[redacted] = _shape(value[name])
    if more := len(value) - len(summary):
        summary["$more"] = more
    return _encode(summary)


def summarize_unknown_args(tool_name: str, arguments: str) -> str:
    """The same for a tool that was not offered: `$tool` has the size of its name, `$more` the number of its fields."""
    value, malformed = _read(arguments)
    more = {"$more": len(value)} if value else {}
    return _encode({"$tool": _shape(tool_name), **malformed, **more})


def _read(arguments: str, value: Any = NOT_READ) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the arguments, and what to say of them where they are no JSON object.

    value: what compact_json.read() gave for them.
    """
    if value is TOO_MANY or (value is NOT_READ and has_too_many_values(arguments)):
        return {}, {"$malformed": {"bytes": _size(arguments)}}
    try:
        value = _decode(arguments.strip() or "{}")
    except (ValueError, RecursionError):
        return {}, {"$malformed": {"bytes": _size(arguments)}}
    return (value, {}) if isinstance(value, dict) else ({}, {"$malformed": _shape(value)})


@lru_cache(maxsize=1_024)
def _argument_name(_version: int, name: str) -> str:
    """A redacted name, cached since each call of a tool has the same names; empty where it may be none."""
    return redact(name) if is_name(name) else ""


def keep_arguments(kept: Arguments) -> None:
    """Sets what this process keeps of arguments, whatever show_fields() names."""
    global _kept
    _kept = kept


def show_fields(tools: Mapping[str, Mapping[str, Show]], *, complete: bool = False) -> None:
    """Sets how arguments are shown, by tool and parameter.

    All others are shown by name, type and size. Where tools are `complete`, with every parameter that they have,
    others are only counted.
    """
    for tool_name, fields in tools.items():
        _shown[tool_name] = {name: _HOW[how] for name, how in fields.items()}
        _named[tool_name] = {name: _HOW_NAMED.get(how, _shape) for name, how in fields.items()}
        if complete:
            _complete.add(tool_name)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 19 else float(digits)


_decode = json.JSONDecoder(strict=False, parse_int=_integer).decode


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _shape(value: Any) -> dict[str, Any]:
    """The type and size of a value."""
    match value:
        case str():
            return {"type": "string", "bytes": _size(value)}
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": "number"}
        case None:
            return {"type": "null"}
        case list():
            return {"type": "array", "items": len(value)}
        case _:
            return {"type": "object", "fields": len(value)}


def _remembering(show: Callable[[str], Any]) -> _Show:
    """How texts are shown; other values by their shape.

    An agent's calls repeat paths, patterns and commands. Those that are shown as they are, and are short, are looked at
    once. What is redacted is not remembered.
    """
    plain: set[tuple[int, str]] = set()

    def shown(value: Any) -> Any:
        if not isinstance(value, str):
            return _shape(value)
        if len(value) > _MAX_REMEMBERED:
            return show(value)
        known = (exact.version(), value)
        if known in plain:
            return value
        text = show(value)
        if text == value:
            if len(plain) >= _MOST_REMEMBERED:
                plain.clear()
            plain.add(known)
        return text

    return shown


def _text(limit: int) -> _Show:
    return _remembering(lambda text: redact_text(fold(text), limit))


def _command(command: str) -> str:
    left_out = 0
    if len(command) > _MAX_COMMAND:
        command = _LONG_SPACE.sub(_shorter_space, command)
    if len(command) > _MAX_COMMAND:
        # The rest is not shown: without its context, nobody can tell commands from the content of a here-document.
        end = max(command.rfind(" ", 0, _MAX_COMMAND), command.rfind("\n", 0, _MAX_COMMAND)) + 1  # not inside a secret
        command, left_out = command[:end], _size(command[end:])
    return redact_text(fold(without_content(redact_own(command))), 1_024, left_out, command=True)


def _shorter_space(run: re.Match[str]) -> str:
    """A shorter run that means the same to a shell: here-documents still end at the same line."""
    before, *lines = run[0].split("\n")
    shown = _one_of(before) + "\n" * min(len(lines), 2)
    return shown + _one_of(lines[-1]) if lines else shown


def _one_of(blanks: str) -> str:
    return blanks[:1] if blanks == blanks[:1] * len(blanks) else " "


def _url(url: str) -> str:
    left_out = _size(url[_MAX_URL:])
    return redact_text(fold(without_values(redact_own(url[:_MAX_URL]))), 512, left_out)


def _number(value: Any) -> Any:
    plain = value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value))
    return value if plain else _shape(value)


_words = _text(256)


def _value(value: Any) -> Any:
    return _words(value) if isinstance(value, str) else _number(value)


def _parts_of_path(value: Any) -> Any:
    return {"type": "path", "parts": len(_PATH_PART.findall(value))} if isinstance(value, str) else _shape(value)


def _outline(command: str) -> str:
    return cut(redact_text(outline(command[:_MAX_COMMAND])), 1_024)


_HOW: Mapping[Show, _Show] = {
    Show.SHAPE: _shape,
    Show.NUMBER: _number,
    Show.VALUE: _value,
    Show.TEXT: _words,
    Show.WORD: _text(32),
    Show.PATH: _text(512),
    Show.COMMAND: _remembering(_command),
    Show.URL: _remembering(_url),
}
_HOW_NAMED: Mapping[Show, _Show] = {Show.PATH: _parts_of_path, Show.COMMAND: _remembering(_outline)}
_shown: dict[str, Mapping[str, _Show]] = {}
"""How each tool's parameters are shown; set by show_fields()."""
_named: dict[str, Mapping[str, _Show]] = {}
"""The same where only names are kept."""
_kept: Arguments = "shown"
_complete: set[str] = set()
"""Tools whose every parameter is in _shown."""
