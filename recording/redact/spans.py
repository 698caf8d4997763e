"""Spans of a text that must not be shown, and their replacement."""

from collections.abc import Iterable
from typing import NamedTuple

_KIND = "[redacted:"


class Span(NamedTuple):
    """The characters from start to end, and what replaces them."""

    start: int
    end: int
    marker: str


def marker(kind: str) -> str:
    """The replacement for a secret of this kind."""
    return f"{_KIND}{kind}]"


def replace(text: str, spans: Iterable[Span]) -> str:
    """Replaces each span by its marker. Overlapping spans are replaced together, by one marker."""
    pieces: list[str] = []
    shown = 0  # up to here, the text is in pieces or removed
    kept = ""  # the marker of the last removed span
    for start, end, mark in sorted(spans):
        if start >= shown:
            pieces += (kept, text[shown:start])
            kept = mark
        elif mark.startswith(_KIND) and not kept.startswith(_KIND):
            kept = mark  # "a key was here" says more than "something was here"
        shown = max(shown, end)
    return "".join((*pieces, kept, text[shown:]))
