"""Parts of a text that must not be shown, and the text without them."""

from collections.abc import Iterable
from typing import NamedTuple

_KIND = "[redacted:"


class Span(NamedTuple):
    """Characters start to end of a text, and what stands there instead."""

    start: int
    end: int
    marker: str


def marker(kind: str) -> str:
    """What stands where a secret of this kind was."""
    return f"{_KIND}{kind}]"


def replace(text: str, spans: Iterable[Span]) -> str:
    """Text with each span replaced by its marker. Of spans that overlap, all characters go, and one marker stays."""
    pieces: list[str] = []
    shown = 0  # up to here, the text is in pieces or gone
    kept = ""  # the marker of what has gone last
    for start, end, mark in sorted(spans):
        if start >= shown:
            pieces += (kept, text[shown:start])
            kept = mark
        elif mark.startswith(_KIND) and not kept.startswith(_KIND):
            kept = mark  # "a key was here" says more than "something was here"
        shown = max(shown, end)
    return "".join((*pieces, kept, text[shown:]))
