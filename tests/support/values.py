"""JSON values, and what is at each place of one."""

import json
from typing import Any


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all parts of a value, the way to itself first."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, part in below for place in places(part, (*here, key)))]


def put(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    """A copy of a value with another at a place."""
    if not place:
        return other
    changed = json.loads(json.dumps(value))
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = other
    return changed
