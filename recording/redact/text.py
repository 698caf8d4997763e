"""Redacts any text: first the process's own secrets, then those that patterns find. Truncation comes last."""

import re
from collections.abc import Callable
from functools import lru_cache

from recording.controls import escape_controls
from recording.redact import arguments, exact, patterns, randomness, shape, urls
from recording.redact.fit import clean, cut
from recording.redact.spans import Span, replace
from recording.redact.views import view

# How much of a text is scanned at its beginning and its end. What lies between is not shown, nor are the characters
# next to it, where a secret may have lost the part that identifies it.
_SCANNED = 4_096
_SCANNED_END = 2_048
_MARGIN = 1_024
_MAX_REMEMBERED = 256
# A shorter secret may be a part of what is none.
_REPEATED = 8
# As OpenAI, Anthropic, vLLM and this program generate them: random, each one different.
_CALL_ID = re.compile(
    r"(?:call|toolu|fc|chatcmpl-tool)[_-](?!A3T|A[A-Z]{3})[A-Za-z0-9]{1,64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)
# Without one of these, a text holds no password by its shape and no URL, and is read as it is written.
_SIGN = re.compile(r"[!#@^%$&\\\"']|://|[^\x00-\x7f]")
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,40}-----")


def redact_text(text: str, limit: int = 2_048, left_out: int = 0, *, command: bool = False) -> str:
    """Redacts any text, such as an error message, then truncates it to limit bytes of UTF-8.

    left_out: how many bytes are already missing at its end.
    command: whether it is a shell's command, in which a word's place tells what it is.
    """
    find = _find_in_command if command else _find
    if len(text) <= _SCANNED:
        return cut(_without_secrets(text, find), limit, left_out)
    margin = max(_MARGIN, exact.longest())
    shown = max(0, _SCANNED - margin)
    head = _without_secrets(text[:_SCANNED], lambda part: [*find(part), Span(shown, len(part), "")])
    end = text[-min(_SCANNED_END - _MARGIN + margin, len(text) - shown) :]
    ending = _beginning_whole(end, margin)
    tail = _without_secrets(end, lambda part: [*find(part), Span(0, ending, "")])
    between = len(text[shown : len(text) - len(end) + ending].encode("utf-8", "replace"))
    return cut(head, limit, left_out + between, "" if left_out else tail)


def _beginning_whole(end: str, margin: int) -> int:
    """Where the first complete word begins: after white space, and after a key whose beginning is cut off."""
    if key := _KEY_ENDS.search(end):
        margin = max(margin, key.end())
    return next((at for at in range(margin, len(end)) if end[at].isspace()), len(end))


def redact_name(name: str, limit: int, before: str = "") -> str:
    """Redacts a name that others chose, such as a tool's or a model's, then truncates it to limit characters.

    Random tokens are kept, since identifiers consist of them. Control characters are escaped, so that different names
    stay different and no name ends early.

    before: what stands before the name and may say that it is a secret, such as a label's key.
    """
    if not name:
        return name
    if len(name) + len(before) > _MAX_REMEMBERED:
        return _redacted_name(name, limit, before)
    return _remembered_name(exact.version(), name, limit, before)


def _redacted_name(name: str, limit: int, before: str = "") -> str:
    cut_off = [Span(max(0, _SCANNED - max(_MARGIN, exact.longest())), _SCANNED, "…")] if len(name) > _SCANNED else []
    name = name[:_SCANNED]
    text = clean(before + name)  # character by character, so that what is found in it lies at the same places
    spans = _named(text)
    if reading := view(text):
        spans += reading.written(_named(reading.text))
    at = len(before)
    in_name = [Span(max(0, start - at), end - at, mark) for start, end, mark in spans if end > at]
    return clean(escape_controls(replace(name, in_name + cut_off)))[:limit]


def _named(text: str) -> list[Span]:
    """What is told in a name by its value, by a pattern or as the userinfo of a URL."""
    return exact.find(text) + patterns.find(text) + urls.find_userinfo(text)


def redact_call_id(call_id: str, limit: int) -> str:
    """Redacts a tool call's id as the model server sent it. One of a known form is only checked for our own secrets."""
    if _CALL_ID.fullmatch(call_id) and not exact.find(call_id):
        return call_id
    return _redacted_name(call_id, limit)


@lru_cache(maxsize=1_024)
def _remembered_name(_version: int, name: str, limit: int, before: str) -> str:
    """Cached, since each row has the same names of engines, models, tools and sessions."""
    return _redacted_name(name, limit, before)


def redact(text: str) -> str:
    """Text of at most 4,096 characters, clean and without secrets."""
    return _without_secrets(text, _find)


def redact_own(text: str) -> str:
    """Text without the process's own secrets."""
    spans = exact.find(text)
    if reading := view(text):
        spans += reading.written(exact.find(reading.text))
    return replace(text, spans) if spans else text


def _find(text: str) -> list[Span]:
    spans = exact.find(text) + randomness.find(text) + patterns.find(text)
    if _SIGN.search(text):
        spans += shape.find(text) + urls.find(text)
        if reading := view(text):
            spans += reading.written(exact.find(reading.text) + _marked(reading.text))
    return spans


def _find_in_command(text: str) -> list[Span]:
    return _find(text) + arguments.find(text)


def _marked(text: str) -> list[Span]:
    """What is told by a pattern or by its signs, which the text as it is read shows better than as it is written."""
    return patterns.find(text) + shape.find(text) + urls.find(text)


def _without_secrets(text: str, find: Callable[[str], list[Span]]) -> str:
    text = clean(text)
    spans = find(text)
    return replace(text, spans + _repeated(text, spans)) if spans else text


def _repeated(text: str, spans: list[Span]) -> list[Span]:
    """Where what was found stands again, with nothing that marks it."""
    found = []
    seen = set()
    for start, end, mark in spans:
        secret = text[start:end].strip("\"'")
        if secret in seen:
            continue
        seen.add(secret)
        if _REPEATED <= len(secret) <= _MAX_REMEMBERED and not secret.isalpha() and mark.startswith("[redacted:"):
            at = text.find(secret)
            while at >= 0:
                if at < start or at >= end:
                    found.append(Span(at, at + len(secret), mark))
                at = text.find(secret, at + len(secret))
    return found
