"""JSON of arguments, read once for all that a row says of them, and written without spaces."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
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
_PIECE = 256 * 1024
_SIGNS = b",[{:"


def has_too_many_values(text: str | bytes, most: int = MAX_VALUES) -> bool:
    """Whether JSON has more than `most` values, by the signs that make them: `,` `[` `{` `:` outside strings.

    Looks at strings only where there are more signs with those in strings, and no further than it must: nobody else
    runs meanwhile.
    """
    if len(text) <= most:
        return False
    return _passes(map(_signs, _pieces(text)), most) and _passes(_signs_outside_strings(text), most)


def _passes(counts: Iterable[int], most: int) -> bool:
    return any(total > most for total in accumulate(counts))


def _pieces(text: str | bytes) -> Iterator[bytes]:
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        yield piece.encode("utf-8", "replace") if isinstance(piece, str) else piece


def _signs(data: bytes) -> int:
    return len(data) - len(data.translate(None, _SIGNS))


def _signs_outside_strings(text: str | bytes) -> Iterator[int]:
    """Of each piece. Behind a backslash outside a string, which is no JSON, the count may be wrong."""
    inside, cut = False, b""
    for piece in _pieces(text):
        data = cut + piece
        cut = data[-1:] if (len(data) - len(data.rstrip(b"\\"))) % 2 else b""
        data = data.removesuffix(cut)
        parts = data.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        yield _signs(b"".join(parts[inside::2]))
        inside ^= len(parts) % 2 == 0


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
