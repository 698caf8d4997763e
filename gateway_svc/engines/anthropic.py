"""Anthropic's Messages API, POST /v1/messages, at Anthropic or at any server that has it: LiteLLM, Ollama, llama.cpp.

Shapes are those of https://platform.claude.com/docs/en/api/messages. Thinking is signed, and goes back with its
signature to the same model: within a turn the API refuses calls without it.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog
from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.engines import StepEvent, StepResult
from gateway_svc.engines.kinds import EngineKind, HttpEngineSettings
from gateway_svc.engines.wire.encoding import (
    build_calls,
    decoded_once,
    encode,
    history_arguments,
    join,
    parse_arguments,
)
from gateway_svc.engines.wire.failures import presentable
from gateway_svc.engines.wire.fields import Fields, clean, fields, items, label, maybe_count, text
from gateway_svc.engines.wire.history import NOT_SHOWN, Encoded, Form, Reader, fit, nonempty_text
from gateway_svc.engines.wire.http import PATIENCE, Answer, BadEnd, ModelServerClient, Patience
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.usage import TokenCounts
from gateway_svc.errors import EngineRejected
from gateway_svc.messages import (
    AssistantMessage,
    Message,
    Native,
    SystemMessage,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from service_kit.bounds import ARGUMENTS, HELD, PARTS
from service_kit.setting_types import Count, Secret

NAME = "anthropic"
API_VERSION = "2023-06-01"
_OTHERS_KINDS = ("server_tool_use", "mcp_tool_use", "_tool_result")
"""Suffixes of the block types for tools that the provider runs itself: not calls of ours."""
_ID_FORM = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FINISHES: dict[str, Literal["stop", "length", "content_filter"]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""Stop reasons that count as good ends. `pause_turn` belongs to the provider's own tools, which are not used."""
_BLOCK_FIELDS = {
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "text": ("type", "text"),
    "tool_use": ("type", "id", "name", "input"),
}
"""The blocks that are sent back, with the fields that the API accepts in each."""

Thoughts = Literal["own", "none", "all"]
"""Which thinking is sent back: the model's own, none, or some with each call."""

log = structlog.get_logger(__name__)


class AnthropicSettings(HttpEngineSettings):
    """The variables GATEWAY_ANTHROPIC_…"""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_ANTHROPIC_")

    api_key: Secret | None = Field(
        None, validation_alias=AliasChoices("GATEWAY_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY")
    )
    max_tokens: Count = Field(16_384, description="of one answer, thinking included; the API requires a limit")
    thinking: Literal["adaptive"] | Count | None = Field(
        None, description="adaptive, or the model's thinking budget in tokens; default: the model's own"
    )
    context_tokens: Count | None = Field(None, ge=512, description="of the model's context; default: by the price list")

    @property
    def context_limit(self) -> int | None:
        return self.context_tokens


class AnthropicEngine:
    """A server that speaks Anthropic's Messages API (the Engine protocol)."""

    name = NAME

    def __init__(
        self,
        base_url: str,
        default_model: str,
        *,
        api_key: str | None = None,
        max_tokens: int = 16_384,
        thinking: Literal["adaptive"] | int | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        """`base_url` is such as `https://api.anthropic.com`, with or without `/v1`."""
        self.default_model = default_model
        self._names = WireNames()
        self._head: dict[str, Any] = {"stream": True, "max_tokens": max_tokens}
        if urlsplit(base_url).hostname == "api.anthropic.com":
            # caches what every request repeats; other providers' servers may not know the field
            self._head["cache_control"] = {"type": "ephemeral"}
        self._thoughts: dict[str, Thoughts] = {}
        """Which thinking each model has been found to require."""
        self._thinking: dict[str, Any] = {}
        if thinking is not None:
            enabled = {"type": "adaptive"} if thinking == "adaptive" else {"type": "enabled", "budget_tokens": thinking}
            self._thinking = {"thinking": enabled}
        path = "/messages" if base_url.rstrip("/").endswith("/v1") else "/v1/messages"
        headers = {"anthropic-version": API_VERSION, **({"x-api-key": api_key} if api_key else {})}
        self._client = ModelServerClient(self.name, base_url, path, patience=patience, api_key=api_key, headers=headers)
        self._origin = f"messages {self._client.address}"

    def encode_message(self, message: Message) -> Encoded:
        """Encodes user text or a result as a block; step() adds the role around it."""
        model = message.native.model if isinstance(message, AssistantMessage) and message.native else ""
        return Encoded(message, self._encode, self._reader(model or self.default_model))

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        self._names.offer(tool.name for tool in tools)
        return encode(
            [
                {
                    "name": self._names.to_wire(tool.name),
                    "description": tool.description,
                    "input_schema": tool.parameters,
                }
                for tool in tools
            ]
        )

    async def step(self, model: str, messages: Sequence[Encoded], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        thoughts = self._thoughts.get(model, "own")
        for _ in range(2):
            try:
                async with aclosing(self._ask(model, messages, tools, thoughts)) as events:
                    async for event in events:
                        yield event
                return
            except EngineRejected as refusal:
                learned = _learned(refusal, thoughts)
                if learned is None:
                    raise
                log.warning("engine.thoughts_refused", engine=self.name, model=model, sent=thoughts)
                thoughts = learned
                if learned == "all":
                    self._thoughts[model] = learned
        async with aclosing(self._ask(model, messages, tools, thoughts)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        await self._client.aclose()

    def _ask(
        self, model: str, messages: Sequence[Encoded], tools: bytes, thoughts: Thoughts
    ) -> AsyncGenerator[StepEvent, None]:
        head = {"model": model, **self._head, **(self._thinking if thoughts != "none" else {})}
        sent = list(zip(messages, fit(messages, self._reader(model, thoughts)), strict=True))
        if sent and isinstance(system := sent[0][0].message, SystemMessage):
            head["system"] = system.text
            del sent[0]
        body = join(head, _turns((encoded.message, data) for encoded, data in sent), tools)
        return self._client.step(model, body, partial(_Answer, self._names, self._origin))

    def _reader(self, model: str, thoughts: Thoughts = "own") -> Reader:
        return Reader(self._origin, model, thoughts, id_form=_ID_FORM)

    def _encode(self, message: Message, form: Form) -> bytes:
        match message:
            case SystemMessage():
                return encode(message.text)
            case UserMessage():
                return encode({"type": "text", "text": nonempty_text(message)})
            case AssistantMessage():
                return encode({"role": "assistant", "content": list(self._blocks(message, form))})
            case ToolMessage():
                return encode({"type": "tool_result", "tool_use_id": form.ids[0], "content": message.text})

    def _blocks(self, message: AssistantMessage, form: Form) -> Iterator[dict[str, Any]]:
        native = form.native(message)
        if native and native.items and form.reader.rules != "none":
            ids = iter(form.ids)
            for block in map(json.loads, native.items):
                yield block | {"id": next(ids)} if block["type"] == "tool_use" else block
            return
        if message.tool_calls and form.reader.rules == "all":
            yield {"type": "thinking", "thinking": NOT_SHOWN, "signature": ""}
        if message.text.strip() or not message.tool_calls:
            yield {"type": "text", "text": nonempty_text(message)}
        for call, provider_call_id in zip(message.tool_calls, form.ids, strict=True):
            name, written = self._names.to_wire(call.name), history_arguments(call.arguments)
            yield {"type": "tool_use", "id": provider_call_id, "name": name, "input": written}


def _learned(refusal: EngineRejected, sent: Thoughts) -> Thoughts | None:
    """Which thinking to send after a refusal because of it; None if that is not the reason.

    A signature may be of another key, or calls of another model may have no thinking, as Anthropic requires within a
    turn: then none is sent. DeepSeek requires some with each call.
    """
    if refusal.http_status != 400 or "thinking" not in refusal.reason:
        return None
    wanted: Thoughts = "all" if "passed back" in refusal.reason else "none"
    return wanted if wanted != sent else None


def _turns(sent: Iterable[tuple[Message, bytes]]) -> Iterator[bytes]:
    """The messages of a request: all results of an answer and the user text after them are one message."""
    for is_answer, run in groupby(sent, key=lambda pair: isinstance(pair[0], AssistantMessage)):
        if is_answer:
            yield from (data for _, data in run)
        else:
            yield b"".join((b'{"role":"user","content":[', b",".join(data for _, data in run), b"]}"))


@dataclass(slots=True)
class _Block:
    """One block of an answer."""

    told: dict[str, Any] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    is_done: bool = False

    def kind(self) -> str:
        """Its type; empty if no event has named it."""
        return label(self.told.get("type"))

    def take_kind(self, kind: str) -> None:
        """Takes the type that a delta implies, if its start event did not name one."""
        if self.kind() not in _BLOCK_FIELDS and not self.kind().endswith(_OTHERS_KINDS):
            self.told["type"] = kind

    def arguments(self) -> str:
        """The input of a call, as JSON text."""
        written, whole = "".join(self.pieces).strip(), self.told.get("input")
        told = whole if isinstance(whole, str) else encode(whole).decode()
        return decoded_once(written or (told if whole else "{}"))

    def is_whole_call(self) -> bool:
        """Whether the server said that the call is complete, or its input shows it."""
        return self.is_done or (bool(self.pieces) and parse_arguments(self.arguments()) is not None)


class _Answer(Answer):
    def __init__(self, names: WireNames, origin: str) -> None:
        self._names = names
        self._origin = origin
        self._blocks: dict[int, _Block] = {}
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
        native = Native(self._origin, model, tuple(_items_back(blocks, whole=finish == "stop")))
        message = AssistantMessage(said, thought, calls, native)
        return StepResult(message, usage, self._model or model, finish)

    def _block(self, chunk: Fields) -> _Block:
        index = maybe_count(chunk.get("index"))
        if index is None:  # a proxy that leaves it out sends one block after another
            index = max(self._blocks, default=-1) + ("content_block" in chunk or not self._blocks)
        return self._at(index)

    def _at(self, index: int) -> _Block:
        if index not in self._blocks:
            self.tally.add(PARTS)
            self._blocks[index] = _Block()
        return self._blocks[index]

    def _begin(self, block: _Block, told: Fields) -> str:
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

    def _think(self, block: _Block, piece: str) -> None:
        """Keeps thinking whole, up to its bound: it is signed, and goes back whole."""
        self.tally.add(HELD, len(piece))
        block.pieces.append(piece)

    def _say(self, block: _Block, piece: str) -> str:
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


def _items_back(blocks: Sequence[_Block], *, whole: bool) -> Iterator[str]:
    """The blocks to send back, each as JSON; none if text and calls say all of it.

    Some servers do not sign thinking, but require it back. If the answer is not `whole`, unsigned thinking was cut, and
    is left out.
    """
    known = [block for block in blocks if block.kind() in _BLOCK_FIELDS]
    if not any(block.kind().endswith("thinking") for block in known):
        return
    for block in known:
        kind, said = block.kind(), clean("".join(block.pieces))
        thinks = bool(block.told.get("signature")) or (whole and bool(said.strip()))
        if (kind == "text" and not said.strip()) or (kind == "thinking" and not thinks):
            continue
        holds: dict[str, Any] = {"thinking": said, "text": said, "input": history_arguments(block.arguments())}
        told = {name: block.told.get(name, "") for name in _BLOCK_FIELDS[kind]}
        yield encode(told | {name: holds[name] for name in holds if name in told}).decode()


def _build(settings: AnthropicSettings) -> AnthropicEngine:
    return AnthropicEngine(
        settings.url or "",
        settings.model or "",
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        max_tokens=settings.max_tokens,
        thinking=settings.thinking,
    )


KIND = EngineKind(name=NAME, settings=AnthropicSettings, build=_build, provider=NAME, lists_prices=True)
