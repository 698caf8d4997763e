"""JSON of arguments, read once for all that a row says of them, and written without spaces.

`json` makes an encoder for each text that it writes, which takes longer than the text of a call's arguments.
"""

import json
import re
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring as _quote
from typing import Any, Final

NOT_READ: Final = object()
"""What read() gives for a text that is to be read with more care."""

_LONG_INTEGER = re.compile(r"[0-9]{19}")
_decoder = json.JSONDecoder()


def read(text: str) -> Any:
    """The value of a text that is JSON, or NOT_READ: it is none, has blanks around it, or an integer of 19 digits."""
    if _LONG_INTEGER.search(text):
        return NOT_READ
    try:
        value, end = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return NOT_READ
    return value if end == len(text) else NOT_READ


def write(fields: Iterable[tuple[str, Any]], encode: Callable[[Any], str]) -> str:
    """An object with these fields, in their order. encode: writes what is no text and no integer."""
    return f"{{{','.join([_quote(name) + ':' + _value(value, encode) for name, value in fields])}}}"


def _value(value: Any, encode: Callable[[Any], str]) -> str:
    if type(value) is str:
        return _quote(value)
    return repr(value) if type(value) is int else encode(value)
