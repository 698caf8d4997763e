"""Rewrites a server's JSON Schema of a tool's arguments into what every provider accepts, or refuses it.

All engines share the strictest rules of any provider: an object at the top, without alternatives there; references
only within the schema; plain JSON, neither too large nor too deep; names of arguments that Anthropic accepts; keywords
with values that are valid in JSON Schema 2020-12; `items` in each array. A provider refuses every request with a schema
that it does not accept.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_BYTES, MAX_DEPTH, MAX_PROPERTIES, MAX_ALTERNATIVES = 65_536, 32, 500, 100
ALTERNATIVES = ("anyOf", "oneOf", "allOf")
IN_HEAD = "x-mcp-header"
"""By this a server wants an argument's value in a head of HTTP too."""
DROPPED = frozenset({"$schema", "$id", "$anchor", "$comment", "$dynamicRef", "$dynamicAnchor", IN_HEAD})
NOT_AT_THE_TOP = frozenset({*ALTERNATIVES, "not", "enum", "const", "if", "then", "else", "$ref"})
SCHEMAS = frozenset({"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"})
SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
LISTS_OF_SCHEMAS = frozenset({*ALTERNATIVES, "prefixItems"})
TYPES = {name: name for name in ("object", "array", "string", "number", "integer", "boolean", "null")}
TYPES |= {"int": "integer", "float": "number", "double": "number", "str": "string", "bool": "boolean", "dict": "object"}
TYPES |= {"map": "object", "list": "array"}
"""The names of types, and what servers write instead."""

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_DOES_NOT_FIT = re.compile(r"[^a-zA-Z0-9_.-]")


class Unusable(Exception):
    """A schema that cannot be used; says why, in our own words."""


def usable(schema: Any) -> dict[str, object]:
    """The schema as models see it, still with the server's names of arguments: see renamed().

    Raises:
        Unusable: it cannot be rewritten.
    """
    if not isinstance(schema, dict):
        raise Unusable("no schema" if schema is None else "schema is no object")
    try:
        if len(json.dumps(schema, allow_nan=False)) > MAX_BYTES:
            raise Unusable("schema too large")
    except (ValueError, RecursionError):  # NaN and Infinity, which JSON does not have
        raise Unusable("schema is not JSON") from None
    _check_depth(schema, MAX_DEPTH)
    merged = _merged(_plain(schema))
    kind = merged.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise Unusable("schema describes no object")
    fields = merged.get("properties") or {}
    if len(fields) > MAX_PROPERTIES:
        raise Unusable("schema too large")
    rest = {key: value for key, value in merged.items() if key not in NOT_AT_THE_TOP | {"required"}}
    required = [name for name in dict.fromkeys(_names(merged.get("required"))) if name in fields]
    usable = {**rest, "type": "object", "properties": fields, **({"required": required} if required else {})}
    return {key: _without_lost_references(value, usable) for key, value in usable.items()}


def renamed(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A usable schema with names of arguments that each provider takes, and the server's names by those."""
    fields: dict[str, Any] = schema["properties"]
    names: dict[str, str] = {}
    for name in fields:
        if not _NAME.fullmatch(name):
            fit = _DOES_NOT_FIT.sub("_", name)[:64] or "_"
            while fit in fields or fit in names:
                fit = f"{fit[:60]}_{len(names)}"
            names[fit] = name
    if not names:
        return schema, {}
    fits = {name: fit for fit, name in names.items()}
    shown = {**schema, "properties": {fits.get(name, name): field for name, field in fields.items()}}
    if "required" in schema:
        shown["required"] = [fits.get(name, name) for name in schema["required"]]
    return shown, names


def in_head(schema: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The places of the arguments whose values the server wants in a head too, and the names that they have there."""
    for name, part in _properties(schema).items():
        if isinstance(part, dict):
            if isinstance(header := part.get(IN_HEAD), str) and _HEADER.fullmatch(header):
                yield (*place, name), header
            yield from in_head(part, (*place, name))


def _check_depth(value: Any, depth: int) -> None:
    if depth == 0:
        raise Unusable("schema too deep")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, depth - 1)


def _plain(schema: Any) -> Any:
    """A schema without what leads out of it, and without what is no schema. One that is none lets anything in."""
    if not isinstance(schema, dict):
        return schema if isinstance(schema, bool) else {}
    reference = schema.get("$ref")
    if reference is not None and not (isinstance(reference, str) and reference.startswith("#")):
        return {}
    plain = dict(_keywords(schema))
    kinds = plain.get("type", ())
    if "array" in (kinds if isinstance(kinds, list) else [kinds]):
        plain.setdefault("items", {})
    if isinstance(plain.get("properties"), dict) and "required" in plain and not any(map(plain.get, ALTERNATIVES)):
        plain["required"] = [name for name in plain["required"] if name in plain["properties"]]
    return plain


def _keywords(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keywords that have a value of the kind that is theirs."""
    for key, value in schema.items():
        if key in DROPPED:
            continue
        if key in SCHEMAS_BY_NAME:
            if isinstance(value, dict):
                yield key, {name: _plain(part) for name, part in value.items()}
        elif key == "items" and isinstance(value, list):  # of each place in turn, as it was once written
            yield key, {"anyOf": [_plain(part) for part in value]} if value else {}
        elif key in SCHEMAS:
            yield key, _plain(value)
        elif key in LISTS_OF_SCHEMAS:
            if isinstance(value, list) and value:
                yield key, [_plain(part) for part in value]
        elif key == "type":
            told = [TYPES[name] for name in _names(value if isinstance(value, list) else [value]) if name in TYPES]
            if told:
                yield key, list(dict.fromkeys(told)) if isinstance(value, list) else told[0]
        elif key == "required":
            if names := _names(value):
                yield key, list(dict.fromkeys(names))
        elif _FITTING.get(key, lambda _: True)(value):
            yield key, value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_FITTING: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _is_count),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("description", "title", "format", "pattern", "$ref"), _is_text),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "enum": lambda value: isinstance(value, list) and bool(value),
    "uniqueItems": lambda value: isinstance(value, bool),
}
"""What the value of a keyword has to be. Draft 4 wrote some of them otherwise."""


def _without_lost_references(value: Any, schema: dict[str, Any]) -> Any:
    """The value, where what its references lead to is there; a reference that leads nowhere lets anything in."""
    if isinstance(value, list):
        return [_without_lost_references(part, schema) for part in value]
    if not isinstance(value, dict):
        return value
    if isinstance(reference := value.get("$ref"), str) and _found(schema, reference) is None:
        return {}
    return {key: _without_lost_references(part, schema) for key, part in value.items()}


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """Merges alternatives at the top into one object, with all properties, and required those that all require."""
    merged = {**_resolved(schema, schema), **schema}
    properties, required = _properties(merged), _names(merged.get("required"))
    for key in ALTERNATIVES:
        listed = merged.get(key)
        branches = [_resolved(schema, branch) for branch in listed] if isinstance(listed, list) else []
        if len(branches) > MAX_ALTERNATIVES:  # each may lead to all properties
            raise Unusable("schema has too many alternatives")
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
        found = _found(schema, reference)
        return found if isinstance(found, dict) else {}
    return part if isinstance(part, dict) else {}


def _found(schema: Any, reference: str) -> Any:
    """What a reference leads to; None where that is nothing."""
    found = schema
    for name in filter(None, reference.removeprefix("#").strip("/").split("/")):
        name = name.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict | bool) else None
