"""Assembles the parts of a streamed answer that a server wants back unchanged."""

from typing import Any

_GROWING = ("text", "summary", "data", "thinking")
"""The fields that come in pieces. All others come whole, once or repeatedly."""


class KeptParts:
    """Consecutive parts with the same type, index and id are one."""

    def __init__(self) -> None:
        self._parts: list[tuple[Any, dict[str, list[str]]]] = []
        """Each part, and the pieces of its growing fields."""

    def add(self, parts: list[Any]) -> None:
        """Takes the parts of one chunk."""
        for part in parts:
            last, pieces = self._parts[-1] if self._parts else (None, {})
            if not isinstance(part, dict) or not isinstance(last, dict) or not _same(part, last):
                last, pieces = (dict(part) if isinstance(part, dict) else part), {}
                self._parts.append((last, pieces))
            for name, value in part.items() if isinstance(part, dict) else ():
                if name in _GROWING and isinstance(value, str):
                    pieces.setdefault(name, []).append(value)
                elif value is not None or name not in last:
                    last[name] = value

    def whole(self) -> list[Any]:
        """All parts."""
        return [
            last | {name: "".join(said) for name, said in pieces.items()} if isinstance(last, dict) else last
            for last, pieces in self._parts
        ]


def _same(part: dict[str, Any], last: dict[str, Any]) -> bool:
    if "index" not in part:
        return False
    return all(part.get(name) in (None, last.get(name)) for name in ("type", "index", "id"))
