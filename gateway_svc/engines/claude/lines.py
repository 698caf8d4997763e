"""Reads fields of the program's lines. A field that is not what it should be counts as absent, and costs nothing else.

Other than gateway_svc.engines.wire.fields, which refuses an answer that cannot be read: here the program has done its
work already, and the rest of the line tells of it.
"""

from gateway_svc.engines.wire.fields import Fields, clean


def an_object(value: object) -> Fields:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def a_word(value: object) -> str:
    """The value where it is a string, a whole number as text, else nothing. Lone surrogates are replaced."""
    if isinstance(value, str):
        return clean(value)
    return str(value) if type(value) is int else ""


def blocks(content: object) -> list[Fields]:
    """The blocks of a message: plain text counts as one, also in place of one."""
    listed = content if isinstance(content, list) else [content]
    return [
        {"type": "text", "text": block} if isinstance(block, str) else block
        for block in listed
        if isinstance(block, str | dict)
    ]
