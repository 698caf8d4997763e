"""Removes the userinfo, the query values and the fragment of URLs."""

import re
from collections.abc import Iterator

from recording.redact.randomness import is_name
from recording.redact.spans import Span, replace

_DROPPED = "*"
# What follows a scheme. It ends at a command substitution, so that `?q=$(cat file)` shows what was sent.
_AFTER_SCHEME = re.compile(r"://((?:[^\s\"'<>`|$]|\$(?!\())+)")
_AUTHORITY_END = re.compile(r"[/?#\\]")
_SCHEME = re.compile(r"\s*(?:([A-Za-z][A-Za-z0-9+.-]*):(?![0-9]))?([/\\]*)")
_HOST_AND_PORT = re.compile(r"@[\w.-]{1,100}:[0-9]{2,5}(?=[/?]|$)")
_FIELD = re.compile(r"([^&;=]*)(?:=([^&;]*))?[&;]?")


def find(text: str) -> list[Span]:
    """The spans of URLs in text that must not be shown."""
    return [span for start, end in _urls(text) for span in _parts(text, start, end)]


def find_userinfo(text: str) -> list[Span]:
    """The spans of the userinfo alone: the rest of a URL may be what tells one name from another."""
    ends = ((start, _userinfo_end(text, start, end)) for start, end in _urls(text))
    return [Span(start, end, _DROPPED) for start, end in ends if end >= 0]


def without_values(url: str) -> str:
    """A whole URL without what must not be shown; of a URL like `data:…`, only the scheme."""
    start = _SCHEME.match(url)
    if start and start[1] and not start[2]:
        return f"{start[1]}:{_DROPPED}"
    return replace(url, _parts(url, start.end() if start else 0, len(url)))


def _urls(text: str) -> Iterator[tuple[int, int]]:
    """Where the URLs in a text begin, after their schemes, and end. One within another ends where the next begins."""
    if "://" not in text:
        return
    for match in _AFTER_SCHEME.finditer(text):
        start, end = match.span(1)
        yield start, end
        while (inner := text.find("://", start, end)) >= 0:
            start = inner + len("://")
            following = text.find("://", start, end)
            yield start, end if following < 0 else following


def _authority_end(text: str, start: int, end: int) -> int:
    found = _AUTHORITY_END.search(text, start, end)
    return found.start() if found else end


def _userinfo_end(text: str, start: int, end: int) -> int:
    """Where the userinfo ends of a URL that begins, after its scheme, at start; -1 if it has none."""
    authority_end = _authority_end(text, start, end)
    userinfo_end = text.rfind("@", start, authority_end)
    if userinfo_end < 0:
        # A password that contains an unencoded slash.
        _, colon, port = text[start:authority_end].partition(":")
        if colon and not port.isdecimal():
            userinfo_end = text.rfind("@", authority_end, end)
    if later := _HOST_AND_PORT.search(text, authority_end, end):
        userinfo_end = later.start()  # a password that contains both, and a slash
    return userinfo_end


def _parts(text: str, start: int, end: int) -> list[Span]:
    authority_end = _authority_end(text, start, end)
    userinfo_end = _userinfo_end(text, start, end)
    spans = []
    if userinfo_end >= 0:
        spans.append(Span(start, userinfo_end, _DROPPED))
        authority_end = max(authority_end, userinfo_end)
    fragment = text.find("#", authority_end, end)
    if fragment >= 0:
        if fragment + 1 < end:
            spans.append(Span(fragment + 1, end, _DROPPED))
        end = fragment
    query = text.find("?", authority_end, end)
    if query >= 0:
        spans += _values(text, query + 1, end)
    return spans


def _values(text: str, start: int, end: int) -> list[Span]:
    spans = []
    for field in _FIELD.finditer(text, start, end):
        if field[1] and not is_name(field[1]):
            spans.append(Span(field.start(1), field.end(1), _DROPPED))
        if field[2]:
            spans.append(Span(field.start(2), field.end(2), _DROPPED))
    return spans
