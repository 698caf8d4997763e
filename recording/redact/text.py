"""Any text without its secrets: the process's own, then what patterns know; then cut, never the other way round."""

from collections.abc import Callable

from recording.redact import exact, patterns, randomness, urls
from recording.redact.fit import clean, cut
from recording.redact.spans import Span, replace
from recording.redact.views import view

# How much of a text is looked at. Nothing of what is beyond is shown, nor of the last characters before it, where a
# secret may have lost the part that it is told by.
_SCANNED = 4_096
_MARGIN = 1_024


def redact_text(text: str, limit: int = 2_048) -> str:
    """Any text, such as an error's, without secrets and then cut to limit bytes of UTF-8."""
    return cut(redact(text), limit)


def redact_name(name: str, limit: int) -> str:
    """A name that others chose, such as a tool's or a model's, without secrets and then cut to limit characters.

    Random characters by themselves are kept: identifiers are made of them.
    """
    return _without_secrets(name, lambda text: exact.find(text) + patterns.find(text))[:limit]


def redact(text: str) -> str:
    """Text, clean and without secrets; when it was longer than what is looked at, only its beginning."""
    return _without_secrets(text, _find)


def redact_own(text: str) -> str:
    """Text without the process's own secrets."""
    spans = exact.find(text)
    if reading := view(text):
        spans += reading.written(exact.find(reading.text))
    return replace(text, spans) if spans else text


def _find(text: str) -> list[Span]:
    spans = exact.find(text) + patterns.find(text) + randomness.find(text) + urls.find(text)
    if reading := view(text):
        spans += reading.written(exact.find(reading.text) + patterns.find(reading.text) + urls.find(reading.text))
    return spans


def _without_secrets(text: str, find: Callable[[str], list[Span]]) -> str:
    text = clean(text[: _SCANNED + 1])
    spans = find(text)
    if len(text) > _SCANNED:
        spans.append(Span(_SCANNED - max(_MARGIN, exact.longest()), len(text), "…"))
    return replace(text, spans) if spans else text
