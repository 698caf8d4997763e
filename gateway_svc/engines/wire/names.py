"""Tool names in OpenAI's APIs, which accept at most 64 letters, digits, `_` and `-`; Gemini none that begin otherwise
than with a letter or `_`.

The gateway's own names fit; those of MCP tools (`server.tool`) and those that a model made up may not. A name that fits
is unchanged. Otherwise a dot becomes `__` and any other character that does not fit becomes `_`. Names that are then
too long, or the same as another's, end in a few digits of a hash.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from gateway_svc.messages import ToolDefinition

MAX_CHARACTERS = 64
_FITS = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_DOES_NOT_FIT = re.compile(r"[^a-zA-Z0-9_-]")
_HASH_CHARACTERS = 8


class WireNames:
    """The names of an engine's tools, in both directions."""

    def __init__(self) -> None:
        self._own: dict[str, str] = {}
        self._wire: dict[str, str] = {}

    def offered(self, tools: Sequence[ToolDefinition]) -> list[ToolDefinition]:
        """Registers all tools, and gives them with their names on the wire."""
        self.offer(tool.name for tool in tools)
        return [replace(tool, name=self.to_wire(tool.name)) for tool in tools]

    def offer(self, names: Iterable[str]) -> None:
        """Registers the names of all tools. Those that fit are never changed, in whatever order they come."""
        for name in sorted(names, key=lambda name: _FITS.fullmatch(name) is None):
            wire = self.to_wire(name)
            if self._own.get(wire, name) != name:
                wire = _told_apart(wire, name)
            self._own[wire], self._wire[name] = name, wire

    def to_wire(self, name: str) -> str:
        """The name on the wire, also for a tool that is not offered, since a history may have any name."""
        if (known := self._wire.get(name)) is not None:
            return known
        if _FITS.fullmatch(name):
            return name
        wire = _DOES_NOT_FIT.sub("_", name.replace(".", "__")) or "unnamed"
        wire = wire if wire[0].isalpha() or wire[0] == "_" else f"_{wire}"
        return wire if len(wire) <= MAX_CHARACTERS else _told_apart(wire, name)

    def to_own(self, wire: str) -> str:
        """The name of the tool that a model called."""
        return self._own.get(wire, wire)


def _told_apart(wire: str, name: str) -> str:
    digits = sha256(name.encode("utf-8", "replace")).hexdigest()[:_HASH_CHARACTERS]
    return f"{wire[: MAX_CHARACTERS - _HASH_CHARACTERS - 1]}_{digits}"
