"""Removes the userinfo, the query values and the fragment of URLs."""

import re

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
    if "://" not in text:
        return []
    return [span for match in _AFTER_SCHEME.finditer(text) for span in _parts(text, match.start(1), match.end(1))]


def without_values(url: str) -> str:
    """A whole URL without what must not be shown; of a URL like `data:…`, only the scheme."""
    start = _SCHEME.match(url)
    if start and start[1] and not start[2]:
        return f"{start[1]}:{_DROPPED}"
    return replace(url, _parts(url, start.end() if start else 0, len(url)))


def _parts(text: str, start: int, end: int) -> list[Span]:
    found = _AUTHORITY_END.search(text, start, end)
    authority_end = found.start() if found else end
    spans = []
    userinfo_end = text.rfind("@", start, authority_end)
    if userinfo_end < 0:
        # A password that contains an unencoded slash.
        _, colon, port = text[start:authority_end].partition(":")
        if colon and not port.isdecimal():
            userinfo_end = text.rfind("@", authority_end, end)
    if later := _HOST_AND_PORT.search(text, authority_end, end):
        userinfo_end = later.start()  # a password that contains both, and a slash
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
