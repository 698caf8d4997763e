"""A text as the program that gets it will read it: escapes decoded, shell quotes taken away."""

import re
from bisect import bisect_right
from collections.abc import Iterable

from recording.redact.spans import Span

# Cheap, and true of every text that reads otherwise than it is written.
_WRITTEN_OTHERWISE = re.compile(r"\\|%[0-9A-Fa-f]{2}|[^\s\"'=(,:;|&\[{<>][\"']+[^\s\"',:;|&)\]}<>]")
_ESCAPE = re.compile(
    r"%(?P<percent>[0-7][0-9A-Fa-f])"
    r"|\\(?:u00(?P<unicode>[0-7][0-9A-Fa-f])|x(?P<hex>[0-7][0-9A-Fa-f])|0?(?P<octal>[01][0-7]{2})|(?P<space>[nrt])|\n|(?P<char>.)(?<!\\[sSwWdDbB](?=[*+?{])))"
    r"|\$?[\"']"
)


class View:
    """A text as it reads, and where each of its characters is written."""

    def __init__(self, text: str) -> None:
        """Decodes one level of escapes of whatever kind they are."""
        pieces: list[str] = []
        self._at = [0]  # from here, the view's characters are those of the text …
        self._origin = [0]  # … from there
        length = done = 0
        for match in _ESCAPE.finditer(text):
            start, end = match.span()
            decoded = _decode(match)
            pieces += (text[done:start], decoded)
            length += start - done
            if decoded:
                self._at.append(length)
                self._origin.append(start)
                length += 1
            self._at.append(length)
            self._origin.append(end)
            done = end
        pieces.append(text[done:])
        self.text = "".join(pieces)

    def written(self, spans: Iterable[Span]) -> list[Span]:
        """Spans of the text that read as the given spans of the view."""
        return [Span(self._written(start), self._written(end), mark) for start, end, mark in spans]

    def _written(self, position: int) -> int:
        index = bisect_right(self._at, position) - 1
        return self._origin[index] + position - self._at[index]


def view(text: str) -> View | None:
    """How text reads, or None when it reads as it is written."""
    if not ("\\" in text or "%" in text or '"' in text or "'" in text):
        return None
    return View(text) if _WRITTEN_OTHERWISE.search(text) else None


def _decode(match: re.Match[str]) -> str:
    if digits := match["percent"] or match["unicode"] or match["hex"]:
        return chr(int(digits, 16))
    if octal := match["octal"]:
        return chr(int(octal, 8))
    if match["space"]:
        return " "
    return match["char"] or ""
