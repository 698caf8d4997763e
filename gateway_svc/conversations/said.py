"""What was said in a session, as its own caller reads it: pages of entries, bounded in bytes."""

from dataclasses import dataclass
from typing import NamedTuple

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.messages import Line, from_line
from gateway_svc.messages import AssistantMessage, ToolMessage, UserMessage
from service_kit.paging import MAX_PAGE_BYTES

NONE_KNOWN = "it is none that this version knows"


class Place(NamedTuple):
    """Where to go on in a conversation; (0, 0) is its beginning."""

    number: int
    """The number that the next record has at least; 0 where it is not known."""
    at: int
    """What the home knows of the place, such as an offset."""


class Said(NamedTuple):
    """A message, or the place of one that cannot be read."""

    number: int
    """Of its record; 0 for a place."""
    line: Line
    """The message as a JSON object (see messages.to_line), or {"damaged": why}."""


@dataclass(frozen=True, slots=True)
class SaidPage:
    """Some of what was said, in its order."""

    said: list[Said]
    next: Place | None
    """Where the next page begins; None if this is the last."""


def entry_of(said: Said) -> pb.TranscriptEntry:
    """What was said, for the wire. One that is larger than a page is cut, and says by how much."""
    entry, budget = pb.TranscriptEntry(number=said.number), _Budget(MAX_PAGE_BYTES)
    if "damaged" in said.line:
        entry.unreadable = str(said.line["damaged"])
        return entry
    try:
        message = from_line(said.line)
    except (KeyError, TypeError, ValueError, AttributeError):
        entry.unreadable = NONE_KNOWN
        return entry
    match message:
        case UserMessage(text):
            entry.user_text = budget.take(text)
        case ToolMessage():
            ids = {
                "provider_call_id": budget.take(message.provider_call_id),
                "tool_name": budget.take(message.tool_name),
            }
            entry.tool_text.CopyFrom(pb.ToolText(**ids, text=budget.take(message.text)))
        case AssistantMessage():
            answer = pb.ModelAnswer(text=budget.take(message.text), thinking=budget.take(message.thinking))
            for call in message.tool_calls:
                fields = (call.id, call.provider_call_id, call.name, call.arguments)
                names = ("tool_call_id", "provider_call_id", "tool_name", "arguments")
                answer.tool_calls.add(**dict(zip(names, map(budget.take, fields), strict=True)))
            entry.model_answer.CopyFrom(answer)
    entry.left_out_bytes = budget.left_out
    return entry


class _Budget:
    """Bytes that the texts of an entry may have together."""

    def __init__(self, size: int) -> None:
        self._rest = size
        self.left_out = 0

    def take(self, text: str) -> str:
        """As much of a text's beginning as there is room for. What no protobuf text can hold is replaced."""
        data = text.encode("utf-8", "replace")
        kept = data[: self._rest].decode("utf-8", "ignore")
        size = len(kept.encode())
        self._rest -= size
        self.left_out += len(data) - size
        return kept
