"""Anthropic's Messages API, POST /v1/messages, at Anthropic or at any server that has it: LiteLLM, Ollama, llama.cpp.

Shapes are those of https://platform.claude.com/docs/en/api/messages. Thinking is signed, and goes back with its
signature to the same model: within a turn the API refuses calls without it.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import groupby
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from gateway_svc.engines import StepEvent
from gateway_svc.engines.anthropic.answer import MessagesAnswer
from gateway_svc.engines.wire.encoding import encode, history_arguments, join
from gateway_svc.engines.wire.history import NOT_SHOWN, Encoded, Form, Reader, fit, nonempty_text, sender
from gateway_svc.engines.wire.http import ModelServerClient
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.patience import PATIENCE, Patience
from gateway_svc.errors import EngineRejected
from gateway_svc.http_client import Tls, tls_context
from gateway_svc.messages import AssistantMessage, Message, SystemMessage, ToolDefinition, ToolMessage, UserMessage

NAME = "anthropic"
API_VERSION = "2023-06-01"
_ID_FORM = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Thoughts = Literal["own", "none", "all"]
"""Which thinking is sent back: the model's own, none, or some with each call."""

log = structlog.get_logger(__name__)


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
        tls: Tls = tls_context,
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
        self._client = ModelServerClient(
            self.name,
            base_url,
            path,
            models=path.replace("/messages", "/models"),
            patience=patience,
            api_key=api_key,
            headers=headers,
            tls=tls,
        )
        self._origin = f"messages {self._client.address}"

    def encode_message(self, message: Message) -> Encoded:
        """Encodes user text or a result as a block; step() adds the role around it."""
        return Encoded(message, self._encode, self._reader(sender(message, self.default_model)))

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        return encode(
            [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "input_schema": tool.parameters,
                }
                for tool in self._names.offered(tools)
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
        return self._client.step(model, body, partial(MessagesAnswer, self._names, self._origin))

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
