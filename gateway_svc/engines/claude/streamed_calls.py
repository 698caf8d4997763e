"""Tool calls from the model's stream, for calls whose own line cannot be read.

They count only once the message has ended or a result has come: if a stream breaks off, the program runs none of them.
"""

import json
from dataclasses import dataclass, field

from gateway_svc.engines.claude.lines import as_object, as_word
from gateway_svc.engines.wire.fields import Fields


@dataclass(slots=True)
class _Streamed:
    block: Fields
    pieces: list[str] = field(default_factory=list)

    def whole(self) -> Fields:
        """The block as its own line would show it. Arguments that cannot be read stay text."""
        given = "".join(self.pieces)
        if not given:
            return self.block
        try:
            arguments = json.loads(given)
        except (ValueError, RecursionError):
            arguments = given
        return {**self.block, "input": arguments}


class StreamedCalls:
    """The calls of the current message, until they are taken."""

    def __init__(self) -> None:
        self._by_index: dict[str, _Streamed] = {}

    def clear(self) -> None:
        """Another message begins."""
        self._by_index.clear()

    def start(self, event: Fields) -> None:
        """A block begins."""
        block = as_object(event.get("content_block"))
        if as_word(block.get("type")).endswith("tool_use") and as_word(block.get("id")):
            self._by_index[as_word(event.get("index"))] = _Streamed(block)

    def add(self, event: Fields, delta: Fields) -> None:
        """A block continues."""
        streamed = self._by_index.get(as_word(event.get("index")))
        if streamed and delta.get("type") == "input_json_delta":
            streamed.pieces.append(as_word(delta.get("partial_json")))

    def take(self, tool_use_id: str) -> Fields | None:
        """Takes the call with this id; each is returned once."""
        for index, streamed in self._by_index.items():
            if as_word(streamed.block.get("id")) == tool_use_id:
                del self._by_index[index]
                return streamed.whole()
        return None

    def take_all(self) -> list[Fields]:
        """Takes all that remain."""
        taken = [streamed.whole() for streamed in self._by_index.values()]
        self._by_index.clear()
        return taken

    def id_of(self, block: Fields) -> str:
        """The id of a whole block: its own, else that of the only open call, which then counts as taken."""
        own = as_word(block.get("id"))
        if not own and len(self._by_index) == 1:
            own = next(as_word(streamed.block.get("id")) for streamed in self._by_index.values())
        if own:
            self.take(own)
        return own
