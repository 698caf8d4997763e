"""The one door for text: every string of every row comes through here, clean, without secrets, and not too long.

Each limit is that of the field in audit.proto, since a row that the ledger must refuse is off the record.
"""

import re
from collections.abc import Mapping
from functools import partial
from hashlib import sha256

from recording import redact

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
MAX_LABELS = 32

_MAX_IDENTIFIER = 128
_MAX_ERROR_BYTES = 2_048
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")

engine = partial(redact.redact_name, limit=64)
model = partial(redact.redact_name, limit=256)
tool_name = partial(redact.redact_name, limit=128)
tool_call_id = partial(redact.redact_call_id, limit=256)
args_summary = redact.summarize_args
error = partial(redact.redact_text, limit=_MAX_ERROR_BYTES)

_label_key = partial(redact.redact_name, limit=64)
_label_value = partial(redact.redact_name, limit=256)


def identifier(text: str) -> str:
    """An id of a row, a session or a turn, kept as it is where it can be.

    One that is too long, or has something in it that must not be shown, ends in a digest of the whole instead: two that
    differ must not become one.
    """
    if _UUID.fullmatch(text):
        return text
    fitted = redact.redact_name(text, _MAX_IDENTIFIER)
    if fitted == text:
        return text
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{fitted[: _MAX_IDENTIFIER - 13]}~{digest}"


def trace_id(text: str) -> str:
    """A W3C trace id; empty where it is none."""
    return text if _TRACE_ID.fullmatch(text) else ""


def label(key: str, value: str) -> tuple[str, str]:
    """A label as rows have it, for who asks the ledger about one."""
    return _label_key(key), _label_value(value)


def labels(given: Mapping[str, str]) -> dict[str, str]:
    """The labels of a session: at most MAX_LABELS of them, none lost because two keys became the same."""
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
    """The number, or the nearest that its field can hold."""
    return max(lowest, min(number, highest))
