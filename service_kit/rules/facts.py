"""What a condition sees of a call, and how much of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT_BYTES = 64 * 1024
"""Of the arguments that a condition reads, in UTF-8, all together."""
MAX_VALUES = 1000
"""Of the arguments that a condition reads: texts, numbers, lists and objects, all together."""


class Unevaluable(Exception):
    """A condition cannot be evaluated for a call. The message quotes no value, since it is recorded."""


@dataclass(slots=True)
class Facts:
    """What is known of a call. None is what is not known, as of a recorded call: a condition that needs it fails.

    Each field is a variable of conditions.
    """

    tool: str
    args: Mapping[str, Any] | None
    """The arguments as parsed."""
    principal: str | None = ""
    """The caller that the gateway authenticated for the turn; empty where there is no list of callers."""
    labels: Mapping[str, str] | None = field(default_factory=dict)
    """The session's labels, which are the client's claims."""
    agent: Mapping[str, str] | None = field(default_factory=lambda: {"name": "", "version": ""})
    """The agent's name and version, which are claims too."""
    engine: str = ""
    model: str = ""
    session: str = ""

    def variables(self, reads: "Reads") -> dict[str, Any]:
        """The variables of a condition, by what it reads.

        Raises:
            Unevaluable: the arguments are too large to be judged.
        """
        variables: dict[str, Any] = {}
        for name in reads.variables:
            value = getattr(self, name)
            if value is not None:
                variables[name] = value if name != "args" else _chosen(value, reads.arguments)
        return variables


@dataclass(frozen=True, slots=True)
class Reads:
    """What a condition reads of a call."""

    variables: frozenset[str]
    arguments: frozenset[str] | None
    """Of `args`; None for all."""

    def __or__(self, other: "Reads") -> "Reads":
        """What either reads."""
        whole = self.arguments is None or other.arguments is None
        arguments = None if whole else (self.arguments or frozenset()) | (other.arguments or frozenset())
        return Reads(self.variables | other.variables, arguments)


def _chosen(args: Mapping[str, Any], names: Collection[str] | None) -> Mapping[str, Any]:
    if names is None:
        _check_size(args)
        return args
    chosen = {name: args[name] for name in names if name in args}
    letters = 0
    for value in chosen.values():  # most are few and short, and none holds others
        if type(value) is str:
            letters += len(value)
        elif type(value) not in (int, bool, float):
            letters = MAX_TEXT_BYTES
    if letters * 4 > MAX_TEXT_BYTES or len(chosen) >= MAX_VALUES:
        _check_size(chosen)
    return chosen


def _check_size(args: Mapping[str, Any]) -> None:
    values = text_bytes = 0
    waiting: list[Any] = [args]
    while waiting:
        value = waiting.pop()
        values += 1
        if isinstance(value, str):
            text_bytes += _size(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
            text_bytes += sum(map(_size, value))
        elif isinstance(value, list):
            waiting += value
        if values + len(waiting) > MAX_VALUES or text_bytes > MAX_TEXT_BYTES:
            raise Unevaluable(
                f"the arguments that it looks at are more than {MAX_TEXT_BYTES // 1024} KiB or {MAX_VALUES:,} values"
            )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
