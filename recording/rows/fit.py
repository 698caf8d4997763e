"""Fits text and numbers to the fields of rows: every string of every row is cleaned, redacted and truncated here.

Each limit is that of the field in audit.proto. The ledger would refuse a row that exceeds one, and the row would be
missing from the record.
"""

import re
from collections.abc import Mapping
from functools import partial

from recording import redact
from recording.redact import exact
from recording.sha256 import sha256

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
MAX_LABELS = 32

_MAX_IDENTIFIER = 128
_MAX_LABEL_KEY = 64
_MAX_ERROR_BYTES = 2_048
_OURS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?:[0-9a-f]{16}){1,2}")
"""A UUID, or the id of a span or of a trace: no pattern redacts them."""
_TRACE_ID = re.compile(r"[0-9a-f]{32}")

engine = partial(redact.redact_name, limit=64)
model = partial(redact.redact_name, limit=256)
tool_name = partial(redact.redact_name, limit=128)
provider_call_id = partial(redact.redact_call_id, limit=256)
args_summary = redact.summarize_args
unknown_args_summary = redact.summarize_unknown_args
error = partial(redact.redact_text, limit=_MAX_ERROR_BYTES)
reason = partial(redact.redact_text, limit=256)
scope = partial(redact.redact_name, limit=1_024)
software = partial(redact.redact_name, limit=64)
name = partial(redact.redact_name, limit=128)
"""Of a caller, a rule or the like."""

_label_key = partial(redact.redact_name, limit=_MAX_LABEL_KEY)
_label_value = partial(redact.redact_name, limit=256)


def identifier(text: str) -> str:
    """The id of a row, a session or a turn, unchanged if possible.

    If it is too long or must be redacted, it ends in a digest of the whole, so that different ids stay different.
    """
    if not text or (_OURS.fullmatch(text) and ("-" in text or not exact.find(text))):
        return text
    fitted = redact.redact_name(text, _MAX_IDENTIFIER)
    if fitted == text:
        return text
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{fitted[: _MAX_IDENTIFIER - 13]}~{digest}"


def trace_id(text: str) -> str:
    """A W3C trace id; empty if the text is not one."""
    return text if _TRACE_ID.fullmatch(text) else ""


def label(key: str, value: str) -> tuple[str, str]:
    """A label as rows store it. Queries for a label need the same form."""
    return _label_key(key), _label_value(value, before=f"{key[:_MAX_LABEL_KEY]}=")


def labels(given: Mapping[str, str]) -> dict[str, str]:
    """The labels of a session, at most MAX_LABELS. Keys that become equal are numbered, so that none is lost."""
    fitted: dict[str, str] = {}
    for key, value in list(given.items())[:MAX_LABELS]:
        name, shown = label(key, value)
        unique, count = name, 1
        while unique in fitted:
            count += 1
            unique = f"{name[:60]}~{count}"
        fitted[unique] = shown
    return fitted


def bounded(number: int, lowest: int = 0, highest: int = INT64_MAX) -> int:
    """The number, or the nearest one that its field can hold."""
    return number if lowest <= number <= highest else max(lowest, min(number, highest))
