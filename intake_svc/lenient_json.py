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


def with_whole_characters(document: Any) -> Any:
    """A document with `?` for each half of a character: JavaScript cuts texts between the two."""
    return json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
