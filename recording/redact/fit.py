"""Making a text fit its field: characters that can be written and shown, and no more bytes than it takes."""

import re

# What ends a terminal's line, moves its cursor, turns its writing round or is no character at all.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_SPACE = re.compile(r"\s{2,}")
_MARK_BYTES = 40
"""More than the mark in the middle of a text takes."""


def clean(text: str) -> str:
    """Text that UTF-8 can write and a terminal can show: other characters, each by itself, become U+FFFD."""
    return _UNSAFE.sub("\ufffd", text) if not (text.isascii() and text.isprintable()) else text


def fold(text: str) -> str:
    """Text in which each run of white space is one line break, where the run has one, or one blank."""
    return _SPACE.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


def cut(text: str, limit: int, left_out: int = 0, end: str = "") -> str:
    """Text of at most limit bytes of UTF-8: of a longer one its beginning, its end, and how many bytes are between.

    left_out: how many bytes are missing already between text and end.
    """
    if not left_out and len(text) * 4 <= limit:
        return text
    head, tail = text.encode("utf-8", "replace"), end.encode("utf-8", "replace")
    if not left_out:
        if len(head) <= limit:
            return text
        tail = head
    size = len(head) + left_out + (len(tail) if left_out else 0)
    room = limit - _MARK_BYTES
    if room < _MARK_BYTES:
        return head[: max(0, limit - 3)].decode("utf-8", "ignore") + "…" if limit >= 3 else ""
    tail = tail[-(room - min(len(head), room * 2 // 3)) :]
    shown, ending = head[: room - len(tail)].decode("utf-8", "ignore"), tail.decode("utf-8", "ignore")
    between = size - len(shown.encode()) - len(ending.encode())
    return f"{shown}[… {between} bytes …]{ending}"
