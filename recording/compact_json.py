"""JSON of arguments, read once for all that a row says of them, and written without spaces."""

import json
import re
from collections.abc import Callable
from json import encoder as json_encoder
from typing import Any, Final

NOT_READ: Final = object()
"""What read() gives for a text that is to be read with more care."""

TOO_MANY: Final = object()
"""What it gives for one of more than MAX_VALUES values: nobody reads it, and it is taken as a text that is no JSON."""

MAX_VALUES = 25_000
"""Nobody else runs while arguments are read, sorted and written anew. No model writes so many."""

_LONG_INTEGER = 19
"""In digits, a sign among them."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""The last one may be cut."""
_BEGINNING = 256 * 1024


def has_too_many_values(text: str | bytes, most: int = MAX_VALUES) -> bool:
    """Whether JSON has more than `most` values, by the signs that make them: `,` `[` `{` `:` outside strings.

    Looks at its beginning first, so that a text which is nothing but values costs little.
    """
    if len(text) <= most:
        return False
    size = _BEGINNING
    while True:
        beginning = text[:size]
        data = beginning.encode("utf-8", "replace") if isinstance(beginning, str) else beginning
        # Each string has two quotes and a sign of its own, so this needs no look at the strings, which costs more.
        if (data.count(b'"') - data.count(b'\\"')) // 2 > most:
            return True
        if _signs(data) > most and _signs(_STRING.sub(b"", data)) > most:
            return True
        if size >= len(text):
            return False
        size *= 4


def _signs(data: bytes) -> int:
    return sum(map(data.count, (b",", b"[", b"{", b":")))


def read(text: str) -> Any:
    """The value of a text that is JSON, or NOT_READ: it is none, has blanks around it, or a long integer.

    TOO_MANY for one that is not to be read at all.
    """
    if has_too_many_values(text):
        return TOO_MANY
    try:
        value, end = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return NOT_READ
    return value if end == len(text) else NOT_READ


def _short_integer(digits: str) -> int:
    if len(digits) >= _LONG_INTEGER:
        raise ValueError("read with more care")
    return int(digits)


_decoder = json.JSONDecoder(parse_int=_short_integer)


def encoder(*, sort_keys: bool = False) -> Callable[[Any], str]:
    """Writes JSON without spaces, as a `json.JSONEncoder` does that escapes no more than it must.

    That makes an encoder for each text, which takes longer than the text of a call's arguments; this one is made once.
    """
    library = json.JSONEncoder(ensure_ascii=False, sort_keys=sort_keys, separators=(",", ":"))
    make = getattr(json_encoder, "c_make_encoder", None)
    if make is None:  # a Python without it in C
        return library.encode
    encode = make(None, library.default, json_encoder.encode_basestring, None, ":", ",", sort_keys, False, True)
    return lambda value: "".join(encode(value, 0))
