"""Reads what a model server sent: each function takes a value of any kind and raises ValueError where it is another.

What is missing or null counts as empty, since servers differ in which of the two they send.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Fields = Mapping[str, Any]

MAX_COUNT = 2**53
"""No server has counted more tokens; a larger number would not fit where counts are kept."""


def fields(value: object) -> Fields:
    """An object."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{_kind(value)} instead of an object")
    return value


def items(value: object) -> Sequence[Any]:
    """An array."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{_kind(value)} instead of an array")
    return value


def text(value: object) -> str:
    """A string; a number as it is written. It may hold lone surrogates, since JSON can: see clean."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{_kind(value)} instead of a string")


def label(value: object) -> str:
    """A name that the answer does not depend on, such as the model's: of any other kind it counts as absent."""
    return value if isinstance(value, str) else ""


def clean(string: str) -> str:
    """The string as UTF-8 and proto strings can carry it: surrogates that are no pair are replaced."""
    try:
        string.encode()
    except UnicodeEncodeError:
        return string.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return string


def maybe_count(value: object) -> int | None:
    """A number of tokens, also as a float or in digits; None where it is none: it is no reason to lose an answer."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def count(value: object) -> int:
    """The same, 0 where it is none."""
    return maybe_count(value) or 0


def _kind(value: object) -> str:
    return type(value).__name__
