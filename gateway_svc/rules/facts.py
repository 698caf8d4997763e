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


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a call. None is what is not known, as of a recorded call: a condition that needs it fails."""

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

    def variables(self, arguments: Collection[str] | None) -> dict[str, Any]:
        """The variables of a condition that reads these arguments; None for all.

        Raises:
            Unevaluable: the arguments are too large to be judged.
        """
        known = {
            "tool": self.tool,
            "args": None if self.args is None else _chosen(self.args, arguments),
            "principal": self.principal,
            "labels": self.labels,
            "agent": self.agent,
            "engine": self.engine,
            "model": self.model,
            "session": self.session,
        }
        return {name: value for name, value in known.items() if value is not None}


def _chosen(args: Mapping[str, Any], names: Collection[str] | None) -> Mapping[str, Any]:
    chosen = args if names is None else {name: args[name] for name in names if name in args}
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
