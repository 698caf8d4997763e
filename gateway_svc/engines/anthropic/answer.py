"""Assembles the events of one answer of the Messages API."""

from typing import Literal

from gateway_svc.engines import StepResult
from gateway_svc.engines.anthropic.blocks import Block, items_back
from gateway_svc.engines.wire.answer import Answer, BadEnd
from gateway_svc.engines.wire.encoding import build_calls, encode
from gateway_svc.engines.wire.failures import presentable
from gateway_svc.engines.wire.fields import Fields, clean, fields, items, label, maybe_count, text
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.usage import TokenCounts
from gateway_svc.messages import AssistantMessage, Native
from service_kit.bounds import ARGUMENTS, HELD, PARTS

_FINISHES: dict[str, Literal["stop", "length", "content_filter"]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""Stop reasons that count as good ends. `pause_turn` belongs to the provider's own tools, which are not used."""


class MessagesAnswer(Answer):
    def __init__(self, names: WireNames, origin: str) -> None:
        self._names = names
        self._origin = origin
        self._blocks: dict[int, Block] = {}
        self._text: list[str] = []
        self._model = self._finish = ""
        self._read: dict[str, int] = {}
        self._tokens = TokenCounts()

    def take(self, chunk: Fields) -> str:
        # by the fields of an event: a proxy may drop its type, which says no more than they do
        if "message" in chunk:
            return self._take_message(fields(chunk["message"]))
        if "content_block" in chunk:
            return self._begin(self._block(chunk), fields(chunk["content_block"]))
        if "delta" in chunk:
            return self._take_delta(chunk, fields(chunk["delta"]))
        match label(chunk.get("type")):
            case "content_block_stop":
                self._block(chunk).is_done = True
            case "message_stop":
                self._take_end(chunk.get("stop_reason"))
                self.ended = self.complete
            case "message":  # from a server that does not stream though asked to
                said = self._take_message(chunk)
                for block in self._blocks.values():
                    block.is_done = True
                self.ended = self.complete
                return said
        return ""  # a ping, or an unknown event

    def result(self, model: str) -> StepResult:
        blocks = [self._blocks[at] for at in sorted(self._blocks)]
        asked = [block for block in blocks if block.kind() == "tool_use"]
        finish = _FINISHES[self._finish]
        if self._finish == "tool_use" and not asked:
            raise BadEnd("ended its answer to call tools, and called none")
        if finish == "stop" and not all(block.is_whole_call() for block in asked):
            raise BadEnd("ended its answer with a call that is not whole")
        calls = build_calls(
            (text(block.told.get("id")), self._names.to_own(text(block.told.get("name"))), block.arguments())
            for block in asked
        )
        said = "".join(self._text)
        thought = clean("\n\n".join("".join(b.pieces) for b in blocks if b.kind() == "thinking"))
        answered = bool(said or thought or calls)
        self._tokens.put("input", sum(self._read.values()))
        usage = self._tokens.usage(answered=answered)
        if not answered and not usage.output_tokens and finish == "stop":
            raise BadEnd("ended its answer without having said anything")
        native = Native(self._origin, model, tuple(items_back(blocks, whole=finish == "stop")))
        message = AssistantMessage(said, thought, calls, native)
        return StepResult(message, usage, self._model or model, finish)

    def _block(self, chunk: Fields) -> Block:
        index = maybe_count(chunk.get("index"))
        if index is None:  # a proxy that leaves it out sends one block after another
            index = max(self._blocks, default=-1) + ("content_block" in chunk or not self._blocks)
        return self._at(index)

    def _at(self, index: int) -> Block:
        if index not in self._blocks:
            self.tally.add(PARTS)
            self._blocks[index] = Block()
        return self._blocks[index]

    def _begin(self, block: Block, told: Fields) -> str:
        self.tally.add(HELD, len(encode(told)))
        block.told |= told
        if "name" in told or "input" in told:
            block.take_kind("tool_use")
        if "text" in told:
            block.take_kind("text")
            return self._say(block, text(told["text"]))
        if "thinking" in told:
            block.take_kind("thinking")
            self._think(block, text(told["thinking"]))
        return ""

    def _take_delta(self, chunk: Fields, delta: Fields) -> str:
        if "stop_reason" in delta or "usage" in chunk:
            self._count(chunk.get("usage"))
            self._take_end(delta.get("stop_reason"))
            return ""
        block = self._block(chunk)
        if "text" in delta:
            block.take_kind("text")
            return self._say(block, text(delta["text"]))
        if "thinking" in delta:
            block.take_kind("thinking")
            self._think(block, text(delta["thinking"]))
        elif "partial_json" in delta:
            block.take_kind("tool_use")
            block.pieces.append(text(delta["partial_json"]))
            self.tally.add(ARGUMENTS, len(block.pieces[-1]))
        elif "signature" in delta:
            self.tally.add(HELD, len(text(delta["signature"])))
            block.told["signature"] = text(block.told.get("signature")) + text(delta["signature"])
        return ""

    def _think(self, block: Block, piece: str) -> None:
        """Keeps thinking whole, up to its bound: it is signed, and goes back whole."""
        self.tally.add(HELD, len(piece))
        block.pieces.append(piece)

    def _say(self, block: Block, piece: str) -> str:
        piece = clean(piece)
        block.pieces.append(piece)
        self._text.append(piece)
        return piece

    def _take_message(self, message: Fields) -> str:
        self._model = label(message.get("model")) or self._model
        self._count(message.get("usage"), is_whole=bool(message.get("stop_reason")))
        told = enumerate(map(fields, items(message.get("content"))))
        said = "".join(self._begin(self._at(at), block) for at, block in told)
        self._take_end(message.get("stop_reason"))
        return said

    def _take_end(self, reason: object) -> None:
        finish = text(reason)
        finish = finish.lower() if finish.lower() in _FINISHES else finish
        if not finish:
            return
        if finish not in _FINISHES:
            raise BadEnd(f"ended its answer for the reason {presentable(finish)[:100]}")
        self.complete, self._finish = True, finish

    def _count(self, usage: object, *, is_whole: bool = True) -> None:
        """Takes a usage; at the start of an answer it has no output. Cache reads and writes count beside the input."""
        if not isinstance(usage, dict):
            return
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            self._read[name] = max(maybe_count(usage.get(name)) or 0, self._read.get(name, 0))
        if is_whole:
            self._tokens.put("output", maybe_count(usage.get("output_tokens")))
        self._tokens.put("cached", self._read["cache_read_input_tokens"])
        self._tokens.put("cache_write", self._read["cache_creation_input_tokens"])
        if isinstance(details := usage.get("output_tokens_details"), dict):
            self._tokens.put("reasoning", maybe_count(details.get("thinking_tokens")))
