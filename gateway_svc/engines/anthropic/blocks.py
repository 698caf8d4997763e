"""The blocks of a message of the Messages API: gathered from a stream, and sent back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway_svc.engines.wire.encoding import decoded_once, encode, history_arguments, parse_arguments
from gateway_svc.engines.wire.fields import clean, label

_OTHERS_KINDS = ("_tool_use", "_tool_result")
"""Suffixes of the block types for tools that the provider runs itself: not calls of ours."""
BLOCK_FIELDS = {
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "text": ("type", "text"),
    "tool_use": ("type", "id", "name", "input"),
}
"""The blocks that are sent back, with the fields that the API accepts in each."""


@dataclass(slots=True)
class Block:
    """One block of an answer."""

    told: dict[str, Any] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    is_done: bool = False

    def kind(self) -> str:
        """Its type; empty if no event has named it."""
        return label(self.told.get("type"))

    def take_kind(self, kind: str) -> None:
        """Takes the type that a delta implies, if its start event did not name one."""
        if self.kind() not in BLOCK_FIELDS and not self.kind().endswith(_OTHERS_KINDS):
            self.told["type"] = kind

    def arguments(self) -> str:
        """The input of a call, as JSON text."""
        written, whole = "".join(self.pieces).strip(), self.told.get("input")
        told = whole if isinstance(whole, str) else encode(whole).decode()
        return decoded_once(written or (told if whole else "{}"))

    def is_whole_call(self) -> bool:
        """Whether the server said that the call is complete, or its input shows it."""
        return self.is_done or (bool(self.pieces) and parse_arguments(self.arguments()) is not None)


def items_back(blocks: Sequence[Block], *, whole: bool) -> Iterator[str]:
    """The blocks to send back, each as JSON; none if text and calls say all of it.

    Some servers do not sign thinking, but require it back. If the answer is not `whole`, unsigned thinking was cut, and
    is left out.
    """
    known = [block for block in blocks if block.kind() in BLOCK_FIELDS]
    if not any(block.kind().endswith("thinking") for block in known):
        return
    for block in known:
        kind, said = block.kind(), clean("".join(block.pieces))
        thinks = bool(block.told.get("signature")) or (whole and bool(said.strip()))
        if (kind == "text" and not said.strip()) or (kind == "thinking" and not thinks):
            continue
        holds: dict[str, Any] = {"thinking": said, "text": said, "input": history_arguments(block.arguments())}
        told = {name: block.told.get(name, "") for name in BLOCK_FIELDS[kind]}
        yield encode(told | {name: holds[name] for name in holds if name in told}).decode()
