"""Making a text fit its field: characters that can be written and shown, and no more bytes than it takes."""

import re

# What ends a terminal's line, moves its cursor, turns its writing round or is no character at all.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that UTF-8 can write and a terminal can show: other characters, each by itself, become U+FFFD."""
    return _UNSAFE.sub("\ufffd", text) if not (text.isascii() and text.isprintable()) else text


def cut(text: str, limit: int) -> str:
    """Text of at most limit bytes of UTF-8, its end marked when something is missing."""
    if len(text) * 4 <= limit:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    return data[: max(0, limit - 3)].decode("utf-8", "ignore") + "…" if limit >= 3 else ""
