"""Makes text fit its field: only characters that can be encoded and displayed, and no more bytes than allowed."""

import re

# Line separators, cursor movement, bidirectional controls and surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_SPACE = re.compile(r"\s{2,}")
_MARK_BYTES = 40
"""An upper bound for the size of the `[… N bytes …]` mark."""


def clean(text: str) -> str:
    """Text that UTF-8 can encode and a terminal can display; each other character becomes U+FFFD."""
    return _UNSAFE.sub("\ufffd", text) if not (text.isascii() and text.isprintable()) else text


def fold(text: str) -> str:
    """Collapses each run of white space to one line break if it contains one, else to one space."""
    if text.isprintable() and "  " not in text:  # of white space, a blank alone counts as printable
        return text
    return _SPACE.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


def cut(text: str, limit: int, left_out: int = 0, end: str = "") -> str:
    """Truncates text to at most limit bytes of UTF-8: its beginning, its end, and the number of bytes between them.

    left_out: how many bytes are already missing between text and end.
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
