"""The process's own keys and tokens, found by value, in every form that commands and URLs give them."""

import base64
import json
import re
import shlex
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from recording.redact.fit import clean, fold
from recording.redact.spans import Span, marker

# Shorter values would also match unrelated text.
MIN_CHARACTERS = 8
# This much of a secret's head or tail counts as the secret, cut short.
_PIECE = 12
_ASCII = "".join(map(chr, range(128)))
_MARKER = marker("own-secret")

_forms: tuple[str, ...] = ()
_version = 0


def protect(values: Iterable[str]) -> None:
    """Registers secrets of this process, to be redacted from now on. Those under 8 characters are ignored."""
    global _forms, _version
    known = dict.fromkeys(_forms)
    for value in values:
        for secret in (value.strip(), *value.splitlines()):
            if len(secret) >= MIN_CHARACTERS:
                known.update(dict.fromkeys(form for form in _written(secret) if len(form) >= MIN_CHARACTERS))
    _forms = tuple(known)
    _version += 1


def version() -> int:
    """Changes whenever protect() is called."""
    return _version


def longest() -> int:
    """The length of the longest form."""
    return max(map(len, _forms), default=0)


def find(text: str) -> list[Span]:
    """The spans of this process's secrets, whole or cut at one end."""
    spans = []
    for form in _forms:
        head, tail = form[:_PIECE], form[-_PIECE:]
        at = text.find(head)
        while at >= 0:
            end = at + _shared(form, text[at : at + len(form)])
            spans.append(Span(at, end, _MARKER))
            at = text.find(head, at + 1)
        end = text.rfind(tail)
        while end >= 0:
            end += len(tail)
            before = text[max(0, end - len(form)) : end]
            start = end - _shared(form[::-1], before[::-1])
            spans.append(Span(start, end, _MARKER))
            end = text.rfind(tail, 0, end - 1)
    return spans


def _shared(one: str, other: str) -> int:
    """The length of the common prefix."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _written(secret: str) -> Iterable[str]:
    data = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield clean(secret)
    yield fold(secret)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", secret)  # escaped for a shell
    yield shlex.quote(secret)[1:-1]
    yield quote_plus(secret, errors="replace")
    beyond_ascii = quote(secret, safe=_ASCII, errors="replace")  # as views.py decodes percent-encoding
    yield beyond_ascii
    yield re.sub(r"%[0-9A-F]{2}", lambda byte: byte[0].lower(), beyond_ascii)
    yield data.hex()
    # The bytes before a secret shift its base64 by up to two; the characters at its ends depend on its neighbours.
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        inner = encoded[(before * 8 + 5) // 6 : (before + len(data)) * 8 // 6].decode()
        yield inner
        yield inner.translate(str.maketrans("+/", "-_"))
