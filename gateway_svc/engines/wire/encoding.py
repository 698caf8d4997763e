"""What the wire formats share: JSON, and tool calls in both directions."""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from uuid import uuid4

from uuid_utils import uuid7

from gateway_svc.engines.wire.fields import clean
from gateway_svc.messages import ToolDefinition
from recording import compact_json
from recording.calls import ToolCall
from service_kit.bounds import ARGUMENT_VALUES, CALLS, Exceeded, check_json

MALFORMED_CHARACTERS = 8_192
"""Of arguments that cannot be read so many go back, at each step: enough for the model to see what it wrote."""

_DESCRIPTION = re.compile(r"description.{0,80}maximum length (\d{1,6})", re.IGNORECASE | re.DOTALL)
_encode = compact_json.encoder()


def encode(value: object) -> bytes:
    """Compact JSON in UTF-8. Lone surrogates, which UTF-8 cannot encode, become question marks."""
    return _encode(value).encode("utf-8", "replace")


def join(head: dict[str, Any], messages: Iterable[bytes], tools: bytes, *, field: bytes = b"messages") -> bytes:
    """A request's body: the fields of head, then messages and tools, which are already encoded."""
    body = b"".join((encode(head)[:-1], b',"', field, b'":[', b",".join(messages), b"]"))
    # OpenAI refuses an empty list of tools
    return body + b"}" if tools in (b"", b"[]") else b"".join((body, b',"tools":', tools, b"}"))


def encode_tools(tools: Iterable[ToolDefinition]) -> bytes:
    """A request's list of tools, in the form that all servers share."""
    return encode(
        [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in tools
        ]
    )


@lru_cache(maxsize=16)
def shorten_descriptions(tools: bytes, characters: int | None) -> bytes:
    """An encoded list of tools, for a server that takes no longer description of one; None: it takes any."""
    if characters is None or tools == b"":
        return tools
    told = json.loads(tools)
    for tool in told:
        described = tool.get("function", tool)
        described["description"] = described["description"][:characters]
    return encode(told)


def longest_description(refusal: str) -> int | None:
    """The most characters of a tool's description that a server's refusal tells."""
    found = _DESCRIPTION.search(refusal)
    return int(found[1]) if found else None


def parse_arguments(arguments: str) -> dict[str, Any] | None:
    """A call's arguments, or None if the model did not write a JSON object."""
    try:
        check_json(arguments, ARGUMENT_VALUES)
        parsed = json.loads(arguments, parse_constant=_refuse)
    except (ValueError, RecursionError, Exceeded):
        return None
    return parsed if isinstance(parsed, dict) else None


def history_arguments(arguments: str) -> dict[str, Any]:
    """A call's arguments, to be sent back to the server.

    Most servers refuse a history in which they are not an object, so malformed ones are wrapped in one. Of long ones it
    is the beginning, since the whole would fill the model's context.
    """
    parsed = parse_arguments(arguments)
    return _malformed(arguments) if parsed is None else parsed


def history_arguments_text(arguments: str) -> str:
    """The same, for servers that expect text: what the model wrote, if that is an object."""
    return arguments if parse_arguments(arguments) is not None else encode(_malformed(arguments)).decode()


def build_calls(calls: Iterable[tuple[str, str, str]]) -> tuple[ToolCall, ...]:
    """Builds tool calls from the server's id (empty if it sent none), the name and the arguments of each.

    If an id is missing, or an earlier call of the same answer has it, a new one is generated, since results refer to
    it. All servers accept nine letters and digits (see gateway_svc.engines.wire.history). Arguments that a server has
    encoded twice are taken for the object that they hold, and null, which Groq sends, for none. Raises Exceeded.
    """
    built: list[ToolCall] = []
    taken: set[str] = set()
    for given, name, arguments in calls:
        provider_call_id = given if given and given not in taken else uuid4().hex[:9]
        taken.add(provider_call_id)
        CALLS.check(len(taken))
        built.append(ToolCall(str(uuid7()), clean(provider_call_id), clean(name), clean(decoded_once(arguments))))
    return tuple(built)


def decoded_once(arguments: str) -> str:
    """What a string of JSON holds, if that is an object. No tool takes anything else, so it is what the model meant."""
    if not arguments.lstrip().startswith(('"', "null")):
        return arguments
    try:
        held = json.loads(arguments)
    except ValueError:
        return arguments
    if held is None:
        return "{}"
    return held if isinstance(held, str) and parse_arguments(held) is not None else arguments


def _malformed(arguments: str) -> dict[str, Any]:
    if len(arguments) <= MALFORMED_CHARACTERS:
        return {"malformed_arguments": arguments}
    return {"malformed_arguments": arguments[:MALFORMED_CHARACTERS], "characters": len(arguments)}


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are not JSON
