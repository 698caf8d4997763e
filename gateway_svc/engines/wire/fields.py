"""Reads fields that a model server sent. Each function takes any value, and raises ValueError if the type is wrong.

Missing and null both count as empty, since servers differ in which they send.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from service_kit.bounds import MAX_COUNT

Fields = Mapping[str, Any]


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
    """A string; a number is converted to one. It may contain lone surrogates, as JSON may: see clean()."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{_kind(value)} instead of a string")


def label(value: object) -> str:
    """A name that the answer does not depend on, such as the model's. Any other type counts as absent."""
    return value if isinstance(value, str) else ""


def clean(string: str) -> str:
    """The string with lone surrogates replaced, which UTF-8 and protobuf cannot encode."""
    try:
        string.encode()
    except UnicodeEncodeError:
        return string.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return string


def maybe_count(value: object) -> int | None:
    """A token count, also as a float or as digits; None if it is not one, since that must not lose the answer."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def count(value: object) -> int:
    """The same, but 0 instead of None."""
    return maybe_count(value) or 0


def _kind(value: object) -> str:
    return type(value).__name__
