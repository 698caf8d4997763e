"""Refuses what OpenAI's Responses API refuses in a request's input and tools, with its messages."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from demo.script_formats import Rejected

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_THOUGHT_DIGITS = 16
_ID_DIGITS = 2 * _THOUGHT_DIGITS
"""The id of an item begins with the digits of the thought that led to it."""
_PARTS = {"user": ("input_text",), "assistant": ("output_text", "refusal")}
_TOOLS_OF_OTHER_KINDS = ("custom", "local_shell", "namespace", "web_search")
"""Kinds of tools that Codex offers beside functions, and that no script calls."""
_ANSWER_KINDS = ("reasoning", "function_call", "message")


def encrypted(item_id: str, model: str) -> str:
    """The encrypted content of a thought, valid only for this item and model."""
    return base64.b64encode(f"scripted {item_id} {model}".encode()).decode()


def turns_of(request: Mapping[str, Any]) -> list[str]:
    """The roles of a conversation's messages; the items of one answer count as one message."""
    roles: list[str] = []
    for item in _items(request):
        role = _role(item)
        if role != "assistant" or roles[-1:] != ["assistant"]:
            roles.append(role)
    return roles


class InputCheck:
    """Checks one request. Its methods raise Rejected."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._request = request
        self._unanswered: list[str] = []
        self._thoughts: set[str] = set()

    def run(self) -> None:
        """Checks everything."""
        if self._request.get("previous_response_id"):
            _refuse("previous_response_id", "Previous response not found.", "previous_response_not_found")
        for at, tool in enumerate(self._request.get("tools") or ()):
            self._tool(f"tools[{at}]", tool)
        items = _items(self._request)
        if not items:
            _refuse("input", "Missing required parameter: 'input'.", "missing_required_parameter")
        for at, item in enumerate(items):
            self._item(f"input[{at}]", item)
            if item.get("type") == "reasoning":
                self._reasoning(f"input[{at}]", item, items[at + 1 : at + 2])
        if self._unanswered:
            _refuse("input", f"No tool output found for function call {self._unanswered[0]}.")

    def _tool(self, place: str, tool: Mapping[str, Any]) -> None:
        if tool.get("type") in _TOOLS_OF_OTHER_KINDS:
            return
        if tool.get("type") != "function":
            _refuse(f"{place}.type", f"Invalid value: '{tool.get('type')}'.", "invalid_value")
        if "name" not in tool:
            _refuse(f"{place}.name", f"Missing required parameter: '{place}.name'.", "missing_required_parameter")
        _name(f"{place}.name", tool["name"])
        _is(f"{place}.parameters", tool.get("parameters"), dict, "an object")
        if tool.get("strict", True) and not _is_strict(tool["parameters"]):
            text = f"Invalid schema for function '{tool['name']}': 'required' is required to be supplied"
            _refuse(f"{place}.parameters", text, "invalid_function_parameters")

    def _item(self, place: str, item: Mapping[str, Any]) -> None:
        for name, value in item.items():
            if value is None:
                _refuse(f"{place}.{name}", f"Invalid type for '{place}.{name}': expected a value, but got null.")
        match item.get("type", "message"):
            case "message":
                self._message(place, item)
            case "function_call":
                self._call(place, item)
            case "function_call_output":
                _is(f"{place}.output", item.get("output"), (str, list), "a string or an array")
                if item.get("call_id") not in self._unanswered:
                    text = f"No tool call found for function call output with call_id {item.get('call_id')}."
                    _refuse("input", text)
                self._unanswered.remove(item["call_id"])
            case "reasoning":
                pass
            case kind:
                _refuse(f"{place}.type", f"Invalid value: '{kind}'.", "invalid_value")
        if item.get("type") == "message" and item.get("role") == "user" and self._unanswered:
            _refuse("input", f"No tool output found for function call {self._unanswered[0]}.")

    def _message(self, place: str, item: Mapping[str, Any]) -> None:
        role, content = item.get("role"), item.get("content")
        if role not in ("user", "assistant", "system", "developer"):
            _refuse(f"{place}.role", f"Invalid value: '{role}'.", "invalid_value")
        _is(f"{place}.content", content, (str, list), "a string or an array")
        kinds = _PARTS.get(role, ("input_text",))
        for at, part in enumerate(content if isinstance(content, list) else ()):
            if part.get("type") not in kinds:
                supported = " and ".join(f"'{kind}'" for kind in kinds)
                text = f"Invalid value: '{part.get('type')}'. Supported values are: {supported}."
                _refuse(f"{place}.content[{at}].type", text, "invalid_value")
            field = "refusal" if part["type"] == "refusal" else "text"
            _is(f"{place}.content[{at}].{field}", part.get(field), str, "a string")
        self._needs_its_thought(item)

    def _call(self, place: str, item: Mapping[str, Any]) -> None:
        _is(f"{place}.arguments", item.get("arguments"), str, "a string")
        _is(f"{place}.call_id", item.get("call_id"), str, "a string")
        _name(f"{place}.name", item.get("name"))
        if item["call_id"] in self._unanswered:
            _refuse("input", f"Duplicate function call with call_id {item['call_id']}.")
        self._unanswered.append(item["call_id"])
        self._needs_its_thought(item)

    def _reasoning(self, place: str, item: Mapping[str, Any], after: Sequence[Mapping[str, Any]]) -> None:
        item_id = item.get("id")
        _is(f"{place}.id", item_id, str, "a string")
        _is(f"{place}.summary", item.get("summary"), list, "an array")
        if "status" in item:
            _refuse(f"{place}.status", f"Unknown parameter: '{place}.status'.", "unknown_parameter")
        if "encrypted_content" not in item:
            text = f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false."
            raise Rejected(404, text, param="input")
        if item["encrypted_content"] != encrypted(str(item_id), self._request["model"]):
            text = f"The encrypted content for item {item_id} could not be verified."
            _refuse("input", text, "invalid_encrypted_content")
        if not after or _role(after[0]) != "assistant":
            text = f"Item '{item_id}' of type 'reasoning' was provided without its required following item."
            _refuse("input", text)
        self._thoughts.add(str(item_id).removeprefix("rs_"))

    def _needs_its_thought(self, item: Mapping[str, Any]) -> None:
        digits = str(item.get("id", "")).partition("_")[2]
        thought = digits[:_THOUGHT_DIGITS] if len(digits) == _ID_DIGITS else ""
        if thought and thought not in self._thoughts:
            rule = f"was provided without its required 'reasoning' item: 'rs_{thought}'."
            _refuse("input", f"Item '{item['id']}' of type '{item['type']}' {rule}")


def _items(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    given = request.get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    _is("input", given, list, "a string or an array")
    return list(given or ())


def _role(item: Mapping[str, Any]) -> str:
    kind = item.get("type", "message")
    if kind == "message":
        return str(item.get("role"))
    return "assistant" if kind in _ANSWER_KINDS else "tool"


def _is_strict(schema: Mapping[str, Any]) -> bool:
    fields = schema.get("properties") or {}
    return schema.get("additionalProperties") is False and set(schema.get("required") or ()) == set(fields)


def _name(place: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        pattern = "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        _refuse(place, f"Invalid '{place}': string does not match pattern. {pattern}", "invalid_value")


def _is(place: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    if not isinstance(value, kind):
        found = "null" if value is None else f"a value of another kind ({type(value).__name__})"
        _refuse(place, f"Invalid type for '{place}': expected {wanted}, but got {found} instead.", "invalid_type")


def _refuse(param: str, message: str, code: str | None = None) -> NoReturn:
    raise Rejected(400, message, code=code, param=param)
