"""Rewrites a server's JSON Schema of a tool's arguments into what every provider accepts, or refuses it.

All engines share the strictest rules of any provider: an object at the top, without alternatives there; references
only within the schema; plain JSON, neither too large nor too deep. A provider refuses every request with a schema that
it does not accept.
"""

import json
from typing import Any

MAX_BYTES, MAX_DEPTH, MAX_PROPERTIES = 65_536, 32, 500
ALTERNATIVES = ("anyOf", "oneOf", "allOf")
DROPPED = frozenset({"$schema", "$id", "$anchor", "$comment", "$dynamicRef", "$dynamicAnchor"})
NOT_AT_THE_TOP = frozenset({*ALTERNATIVES, "not", "enum", "const", "if", "then", "else", "$ref"})


class Unusable(Exception):
    """A schema that cannot be used; says why, in our own words."""


def usable(schema: Any) -> dict[str, object]:
    """The schema as models see it.

    Raises:
        Unusable: it cannot be rewritten.
    """
    if not isinstance(schema, dict):
        raise Unusable("no schema" if schema is None else "schema is no object")
    try:
        if len(json.dumps(schema, allow_nan=False)) > MAX_BYTES:
            raise Unusable("schema too large")
    except (ValueError, RecursionError):  # NaN and Infinity, which JSON does not have
        raise Unusable("schema is no JSON") from None
    merged = _merged(_plain(schema, MAX_DEPTH))
    kind = merged.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise Unusable("schema describes no object")
    properties = merged.get("properties") or {}
    if not isinstance(properties, dict):
        raise Unusable("schema names no properties")
    if len(properties) > MAX_PROPERTIES:
        raise Unusable("schema too large")
    rest = {key: value for key, value in merged.items() if key not in NOT_AT_THE_TOP | {"required"}}
    # a property with an invalid schema accepts anything
    fields = {name: field if isinstance(field, dict | bool) else {} for name, field in properties.items()}
    required = [name for name in dict.fromkeys(_names(merged.get("required"))) if name in fields]
    return {**rest, "type": "object", "properties": fields, **({"required": required} if required else {})}


def _plain(value: Any, depth: int) -> Any:
    """The value without outside references."""
    if depth == 0:
        raise Unusable("schema too deep")
    if isinstance(value, list):
        return [_plain(part, depth - 1) for part in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if reference is not None and not (isinstance(reference, str) and reference.startswith("#")):
        return {}
    return {key: _plain(part, depth - 1) for key, part in value.items() if key not in DROPPED}


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """Merges alternatives at the top into one object, with all properties, and required those that all require."""
    merged = {**_resolved(schema, schema), **schema}
    properties, required = _properties(merged), _names(merged.get("required"))
    for key in ALTERNATIVES:
        listed = merged.get(key)
        branches = [_resolved(schema, branch) for branch in listed] if isinstance(listed, list) else []
        needs = [set(_names(branch.get("required"))) for branch in branches]
        for branch in branches:
            properties = {**_properties(branch), **properties}
        if needs:
            required += sorted(set.union(*needs) if key == "allOf" else set.intersection(*needs))
    return {**merged, **({"properties": properties} if properties else {}), "required": required}


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _names(required: Any) -> list[str]:
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def _resolved(schema: dict[str, Any], part: Any) -> dict[str, Any]:
    """A part of the schema, or the target of its reference."""
    if isinstance(part, dict) and isinstance(reference := part.get("$ref"), str):
        found: Any = schema
        for name in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}
    return part if isinstance(part, dict) else {}
