"""JSON of others with texts that are cut or of another encoding. Imports the standard library alone: hooks use it."""

import json
from typing import Any


def load_json(data: bytes) -> Any:
    """A document, with `�` for bytes that are not in its encoding.

    Raises:
        ValueError, RecursionError: it is none.
    """
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        return json.loads(data.decode(errors="replace"))


def mend_characters(document: Any) -> None:
    """Puts `?` for each half of a character in a document's texts and names: JavaScript cuts texts between the two."""
    waiting = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for name in [name for name in part if not name.isascii()]:
                part[_whole(name)] = part.pop(name)
        for key, value in list(part.items() if isinstance(part, dict) else enumerate(part)):
            if isinstance(value, dict | list):
                waiting.append(value)
            elif isinstance(value, str) and not value.isascii():
                part[key] = _whole(value)


def _whole(text: str) -> str:
    return text.encode(errors="replace").decode()
