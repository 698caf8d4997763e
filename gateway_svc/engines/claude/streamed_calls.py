"""Tool calls from the model's stream, for calls whose own line cannot be read.

They count only once the message has ended or a result has come: if a stream breaks off, the program runs none of them.
"""

import json
from dataclasses import dataclass, field

from gateway_svc.engines.claude.lines import MAX_LINE_BYTES, as_id, as_object, as_word
from gateway_svc.engines.wire.fields import Fields
from service_kit.bounds import CALLS, FRAGMENTS, PROGRAM_TEXT, Exceeded, Tally, check_json


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
            check_json(given)
            arguments = json.loads(given)
        except (ValueError, RecursionError, Exceeded):
            arguments = given
        return {**self.block, "input": arguments}


def size_of(block: Fields) -> int:
    """How many characters a block has as JSON."""
    try:
        return len(json.dumps(block, ensure_ascii=False))
    except (ValueError, RecursionError):  # nested too deep
        return MAX_LINE_BYTES


class StreamedCalls:
    """The calls of the current message, until they are taken."""

    def __init__(self, tally: Tally) -> None:
        """`tally` counts the characters of all messages."""
        self._tally = tally
        self._by_index: dict[str, _Streamed] = {}
        self._fragments = 0

    def clear(self) -> None:
        """Another message begins."""
        self._by_index.clear()
        self._fragments = 0

    def start(self, event: Fields) -> None:
        """A block begins."""
        block = as_object(event.get("content_block"))
        if as_word(block.get("type")).endswith("tool_use") and as_id(block.get("id")):
            self._tally.add(PROGRAM_TEXT, size_of(block))
            self._by_index[as_id(event.get("index"))] = _Streamed(block)
            CALLS.check(len(self._by_index))

    def add(self, event: Fields, delta: Fields) -> None:
        """A block continues."""
        streamed = self._by_index.get(as_id(event.get("index")))
        if streamed and delta.get("type") == "input_json_delta":
            piece = as_word(delta.get("partial_json"))
            self._tally.add(PROGRAM_TEXT, len(piece))
            self._fragments += 1
            FRAGMENTS.check(self._fragments)
            streamed.pieces.append(piece)

    def take(self, tool_use_id: str) -> Fields | None:
        """Takes the call with this id; each is returned once."""
        for index, streamed in self._by_index.items():
            if as_id(streamed.block.get("id")) == tool_use_id:
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
        own = as_id(block.get("id"))
        if not own and len(self._by_index) == 1:
            own = next(as_id(streamed.block.get("id")) for streamed in self._by_index.values())
        if own:
            self.take(own)
        return own
