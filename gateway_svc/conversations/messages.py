"""A message as the bytes that a home of conversations keeps, and back: JSON in UTF-8."""

from typing import Any

from gateway_svc.messages import AssistantMessage, Message, Native, ToolMessage, UserMessage
from recording import compact_json
from recording.calls import ToolCall

Line = dict[str, Any]

_encode = compact_json.encoder()


def to_line(message: Message) -> Line:
    """A message as a JSON object: {"user": …}, {"assistant": …} or {"tool": …}."""
    match message:
        case UserMessage(text):
            return {"user": text}
        case ToolMessage():
            return {"tool": _fields(message)}
        case AssistantMessage(native=native):
            fields = _fields(message) | {"tool_calls": list(map(_fields, message.tool_calls))}
            if native is None:
                del fields["native"]
            else:
                fields["native"] = _fields(native)
            return {"assistant": fields}
        case _:
            raise TypeError(f"{type(message).__name__} is not part of a conversation")


def from_line(line: Line) -> Message:
    """The message of a JSON object.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    if "user" in line:
        return UserMessage(line["user"])
    if "tool" in line:
        return ToolMessage(**_renamed(line["tool"]))
    fields = dict(line["assistant"])
    fields["tool_calls"] = tuple(ToolCall(**_renamed(call)) for call in fields["tool_calls"])
    if native := fields.get("native"):
        fields["native"] = Native(**{**native, "items": tuple(native["items"])})
    return AssistantMessage(**fields)


def encode(line: Line) -> bytes:
    """A JSON object as bytes. A lone surrogate, which UTF-8 cannot hold, is replaced."""
    return _encode(line).encode("utf-8", "replace")


def _fields(value: ToolMessage | AssistantMessage | ToolCall | Native) -> Line:
    """Its fields as they are: dataclasses.asdict() would copy what is in them."""
    return {name: getattr(value, name) for name in value.__slots__}


def _renamed(fields: Line) -> Line:
    """Older conversations have the model server's id of a call under another name."""
    return {"provider_call_id" if name == "tool_call_id" else name: value for name, value in fields.items()}
