"""Text as its recipient reads it: escapes decoded, shell quotes and what nobody sees removed."""

import re
from bisect import bisect_right
from collections.abc import Iterable

from recording.redact.spans import Span

# Characters without a sign of their own, such as soft hyphens and what pages put where a long word may break.
_UNSEEN = "\u00ad\u200b-\u200d\u2060\ufeff"
# Those that look like one of ASCII: full-width letters, digits and signs, and hyphens that do not break.
_ALIKE = "\uff01-\uff5e\u2010\u2011"
# A cheap test that matches every text with escapes or quotes to remove.
_WRITTEN_OTHERWISE = re.compile(
    rf"\\|%[0-9A-Fa-f]{{2}}|[{_UNSEEN}{_ALIKE}]|[^\s\"'=(,:;|&\[{{<>][\"']+[^\s\"',:;|&)\]}}<>]"
)
_ESCAPE = re.compile(
    r"%(?P<percent>[0-7][0-9A-Fa-f])"
    r"|\\(?:u00(?P<unicode>[0-7][0-9A-Fa-f])|x(?P<hex>[0-7][0-9A-Fa-f])|0?(?P<octal>[01][0-7]{2})|(?P<space>[nrt])|\n|(?P<char>.)(?<!\\[sSwWdDbB](?=[*+?{])))"
    rf"|(?P<alike>[{_ALIKE}])|[{_UNSEEN}]"
    r"|\$?(?:(?<![ \t])[\"']|[\"'](?![ \t]))"  # one between blanks ends what the text as it is shows
)


class View:
    """A decoded text, with the original position of each of its characters."""

    def __init__(self, text: str) -> None:
        """Decodes one level of escapes of any kind."""
        pieces: list[str] = []
        self._at = [0]  # the decoded text from here …
        self._origin = [0]  # … is the original text from there
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
        """The spans of the original text that correspond to the given spans of the decoded one."""
        return [Span(self._written(start), self._written(end), mark) for start, end, mark in spans]

    def _written(self, position: int) -> int:
        index = bisect_right(self._at, position) - 1
        return self._origin[index] + position - self._at[index]


def view(text: str) -> View | None:
    """The decoded text, or None if there is nothing to decode."""
    if text.isascii() and not ("\\" in text or "%" in text or '"' in text or "'" in text):
        return None
    return View(text) if _WRITTEN_OTHERWISE.search(text) else None


def _decode(match: re.Match[str]) -> str:
    if digits := match["percent"] or match["unicode"] or match["hex"]:
        return chr(int(digits, 16))
    if octal := match["octal"]:
        return chr(int(octal, 8))
    if alike := match["alike"]:
        return "-" if alike < "\uff01" else chr(ord(alike) - 0xFEE0)
    if match["space"]:
        return " "
    return match["char"] or ""
