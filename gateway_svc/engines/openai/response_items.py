"""The items of OpenAI's Responses API, in the form in which they go back to their server."""

from typing import Any

from gateway_svc.engines.wire.fields import Fields

MAX_ID_CHARACTERS = 64
ITEM_FIELDS: dict[str, tuple[str, ...]] = {
    "message": ("type", "id", "role", "status", "content", "phase"),
    "function_call": ("type", "id", "call_id", "name", "arguments", "status"),
    "reasoning": ("type", "id", "summary", "content", "encrypted_content"),
}
"""The fields that the API accepts in each kind of item. Any other is refused as an unknown parameter."""
_PART_FIELDS = ("type", "text", "refusal", "annotations")


def sendable(item: Fields) -> dict[str, Any]:
    """An item with the fields that the API knows, without nulls and without an id that is too long."""
    kept = {name: item[name] for name in ITEM_FIELDS[item["type"]] if item.get(name) is not None}
    if len(str(kept.get("id", ""))) > MAX_ID_CHARACTERS:
        del kept["id"]
    if kept["type"] == "reasoning":
        kept.setdefault("summary", [])
    for name in ("content", "summary"):
        if isinstance(parts := kept.get(name), list):
            kept[name] = [_part(part) for part in parts if isinstance(part, dict)]
    if kept["type"] == "message":
        kept.setdefault("role", "assistant")
    return kept


def _part(part: Fields) -> dict[str, Any]:
    return {name: part[name] for name in _PART_FIELDS if part.get(name) is not None}
