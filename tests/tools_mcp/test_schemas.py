"""No schema of one tool makes a provider refuse every request: what providers are known to refuse is mended."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.mcp.listing import Listing, _take
from gateway_svc.tools.mcp.schemas import TYPES, Unusable, renamed, usable
from tests.support.values import places, put
from tests.tools_mcp.test_strangers import GOOD, JSON, plays

NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def refused(schema: Any) -> str:
    """Why a provider refuses a schema of a tool's arguments: OpenAI, Gemini, or Anthropic, by draft 2020-12."""
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        return "describes no object"
    if odd := [name for name in schema["properties"] if not NAME.fullmatch(name)]:
        return f"Property keys should match pattern: {odd}"
    return _refused(schema)


def _refused(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "" if isinstance(schema, bool) else "no schema"
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not set(kinds) <= {"object", "array", "string", "number", "integer", "boolean", "null"}:
        return "unknown type"
    if "array" in kinds and "items" not in schema:
        return "array schema missing items"
    fields = schema.get("properties", {})
    if "properties" in schema and not {*schema.get("required", ())} <= fields.keys():
        return "property is not defined"
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        return "enum"
    inner = [*fields.values(), *(schema[key] for key in ("items", "additionalProperties") if key in schema)]
    inner += [part for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key, ())]
    return next(filter(None, map(_refused, inner)), "")


STRING = {"type": "string"}


def of(field: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": field}, **more}


SCHEMAS: dict[str, tuple[Any, Any]] = {
    "a list without items": (of({"type": "array"}), of({"type": "array", "items": {}})),
    "a list or null": (of({"type": ["array", "null"]}), of({"type": ["array", "null"], "items": {}})),
    "items as a tuple": (of({"type": "array", "items": [STRING]}), of({"type": "array", "items": {"anyOf": [STRING]}})),
    "items that are none": (of({"type": "array", "items": None}), of({"type": "array", "items": {}})),
    "a type of Python's": (of({"type": "int"}), of({"type": "integer"})),
    "a type of nobody's": (of({"type": "date"}), of({})),
    "an empty type": (of({"type": ""}), of({})),
    "required among the properties": (
        {"type": "object", "properties": {"a": STRING, "required": ["a"]}},
        {"type": "object", "properties": {"a": STRING, "required": {}}},
    ),
    "required that names nobody": (of(STRING, required=["a", "b"]), of(STRING, required=["a"])),
    "required that names nobody, deeper": (
        of(of(STRING, required=["b"])),
        of(of(STRING, required=[])),
    ),
    "required as truth": (of({**STRING, "required": True}), of(STRING)),
    "a bound of draft 4": (of({"type": "number", "exclusiveMinimum": True}), of({"type": "number"})),
    "a choice of nothing": (of({"enum": []}), of({})),
    "a reference to nowhere": (of({"$ref": "#/$defs/gone"}), of({})),
    "an argument that is called $ref": (
        {"type": "object", "properties": {"$ref": STRING, "$id": STRING}},
        {"type": "object", "properties": {"$ref": STRING, "$id": STRING}},
    ),
    "a description that is a list": (of({**STRING, "description": ["x"]}), of(STRING)),
    "properties as a list": ({"type": "object", "properties": ["a"]}, {"type": "object", "properties": {}}),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_providers_refuse_is_mended(name: str):
    schema, mended = SCHEMAS[name]
    assert usable(schema) == mended
    assert refused(renamed(usable(schema))[0]) == ""


@given(st.sampled_from(places(GOOD["inputSchema"])), JSON | st.sampled_from(sorted(TYPES)))
def test_any_change_of_a_schema_is_one_that_providers_take_or_is_left_out(place: Any, other: Any):
    try:
        shown, _ = renamed(usable(put(GOOD["inputSchema"], place, other)))
    except Unusable:
        return
    assert refused(shown) == "", json.dumps(shown)


ODD_NAMES = ["filter[id]", "Account Number", "é", "x" * 70, "x" * 71, "a.b", "", "filter_id_"]


def test_arguments_are_called_as_providers_take_them_and_told_to_the_server_by_its_own_names():
    schema = {"type": "object", "properties": dict.fromkeys(ODD_NAMES, STRING), "required": ODD_NAMES[:2]}
    shown, names = renamed(usable(schema))
    assert refused(shown) == ""
    assert len(shown["properties"]) == len(ODD_NAMES)
    assert shown["properties"].keys() >= {"a.b", "filter_id_"}, "a name that fits stays"
    assert {names.get(name, name) for name in shown["properties"]} == set(ODD_NAMES)
    assert [names.get(name, name) for name in shown["required"]] == ODD_NAMES[:2]


async def test_a_server_is_called_by_its_own_names_of_arguments(open_desk):
    desk = await open_desk(t=plays("brackets"))
    (tool,) = desk.toolbox.definitions()
    assert list(tool.parameters["properties"]) == ["filter_x_"]
    result = await desk.run("t.go", '{"filter_x_": "1"}')
    assert (result.text, result.outcome) == ('{"filter[x]": "1"}', common_pb2.OUTCOME_SUCCEEDED)


def test_one_bad_tool_is_left_out_of_the_list_alone():
    listing = Listing()
    for number, schema in enumerate([{"type": "string"}, of(STRING)], start=1):
        _take({"name": f"t{number}", "inputSchema": schema}, number, "s", lambda *_: None, listing)  # type: ignore[arg-type]
    assert list(listing.tools) == ["s.t2"]
    assert listing.left_out == {"s.t1": "schema describes no object"}
