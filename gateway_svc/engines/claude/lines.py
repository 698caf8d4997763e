"""Reads fields of the program's lines. A field of the wrong type counts as absent, and affects no other.

Unlike gateway_svc.engines.wire.fields, which refuses an answer that cannot be read: here the program has already done
its work, and the rest of the line still counts.
"""

from gateway_svc.engines.wire.fields import Fields, clean

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is skipped: an image that a tool read is a line of several megabytes, and nothing needs more."""
MAX_ID_CHARACTERS = 256


def as_object(value: object) -> Fields:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_word(value: object) -> str:
    """The value if it is a string, a whole number as text, else an empty string. Lone surrogates are replaced."""
    if isinstance(value, str):
        return clean(value)
    return str(value) if type(value) is int else ""


def as_id(value: object) -> str:
    """The beginning of a word that names something: names are kept for as long as the turn runs."""
    return as_word(value)[:MAX_ID_CHARACTERS]


def blocks(content: object) -> list[Fields]:
    """The blocks of a message. Plain text counts as a block, alone or among others."""
    listed = content if isinstance(content, list) else [content]
    return [
        {"type": "text", "text": block} if isinstance(block, str) else block
        for block in listed
        if isinstance(block, str | dict)
    ]
