"""OpenAI's chat completions, POST /chat/completions under any base URL: OpenAI, llama.cpp, vLLM, LM Studio, OpenRouter.

Shapes are those of OpenAI's API reference. Variations of other servers are accepted too; comments name the servers.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog

from gateway_svc.engines import StepEvent
from gateway_svc.engines.openai.chat_answer import ChatAnswer
from gateway_svc.engines.openai.dialect import STRICT_HOSTS, Dialect
from gateway_svc.engines.wire.encoding import (
    encode,
    encode_tools,
    history_arguments_text,
    join,
    shorten_descriptions,
)
from gateway_svc.engines.wire.history import NOT_SHOWN, Encoded, Form, Reader, fit, nonempty_text, sender
from gateway_svc.engines.wire.http import ModelServerClient
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.patience import PATIENCE, Patience
from gateway_svc.errors import EngineBrokeOff, EngineRejected, EngineUnavailable
from gateway_svc.http_client import Tls, tls_context
from gateway_svc.messages import AssistantMessage, Message, SystemMessage, ToolDefinition, ToolMessage, UserMessage

_UNSIGNED = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""The placeholder that Google documents for calls made by another model."""
_MAX_LESSONS = 4
"""How often a request is retried because its refusal taught something."""

log = structlog.get_logger(__name__)


class OpenAIEngine:
    """A server that speaks OpenAI's chat completions (the Engine protocol)."""

    name = "openai"

    def __init__(
        self,
        base_url: str,
        default_model: str,
        *,
        api_key: str | None = None,
        patience: Patience = PATIENCE,
        tls: Tls = tls_context,
    ) -> None:
        """`base_url` ends where `/chat/completions` begins, such as `https://api.openai.com/v1`."""
        self.default_model = default_model
        self._names = WireNames()
        host = urlsplit(base_url).hostname or ""
        strict = host in STRICT_HOSTS
        self._dialect = Dialect(STRICT_HOSTS[host], strict=True) if strict else Dialect()
        self._dialects: dict[str, Dialect] = {}
        self._client = ModelServerClient(
            self.name, base_url, "/chat/completions", models="/models", patience=patience, api_key=api_key, tls=tls
        )
        self._origin = f"chat {self._client.address}"

    def encode_message(self, message: Message) -> Encoded:
        return Encoded(message, self._encode, self._reader(sender(message, self.default_model)))

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        return encode_tools(self._names.offered(tools))

    async def step(self, model: str, messages: Sequence[Encoded], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        begun = False
        for _ in range(_MAX_LESSONS):
            try:
                async with aclosing(self._ask(model, messages, tools)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except (EngineRejected, EngineUnavailable, EngineBrokeOff) as refusal:
                # some servers answer a field that they do not know as a fault of their own, or within a stream
                teaches = not isinstance(refusal, EngineUnavailable) or refusal.http_status in (500, 501)
                learned = self._for(model).learn(refusal.reason) if teaches and not begun else None
                if learned is None:
                    raise
                self._remember(model, *learned)
                log.warning("engine.dialect_learned", engine=self.name, model=model, http_status=refusal.http_status)
        async with aclosing(self._ask(model, messages, tools)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        await self._client.aclose()

    def _ask(self, model: str, messages: Sequence[Encoded], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        head: dict[str, Any] = {"model": model, "stream": True}
        if self._for(model).stream_options:
            head["stream_options"] = {"include_usage": True}
        tools = shorten_descriptions(tools, self._for(model).description_characters)
        body = join(head, fit(messages, self._reader(model)), tools)
        learn = partial(self._learn_reasoning_field, model)
        return self._client.step(model, body, partial(ChatAnswer, self._names, self._origin, learn))

    def _for(self, model: str) -> Dialect:
        return self._dialects.get(model, self._dialect)

    def _reader(self, model: str) -> Reader:
        dialect = self._for(model)
        return Reader(self._origin, model, dialect, keeps_ids=dialect.keeps_ids)

    def _remember(self, model: str, learned: Dialect, scope: str) -> None:
        self._dialects[model] = learned
        if scope == "server":
            self._dialect = self._dialect.share(learned)
            self._dialects = {name: dialect.share(learned) for name, dialect in self._dialects.items()}

    def _learn_reasoning_field(self, model: str, name: str) -> None:
        """A server accepts reasoning under the field name that it sends it under."""
        dialect = self._for(model)
        if not dialect.strict and dialect.reasoning_field not in ("", name):
            self._dialects[model] = replace(dialect, reasoning_field=name)

    def _encode(self, message: Message, form: Form) -> bytes:
        match message:
            case SystemMessage():
                return encode({"role": "system", "content": message.text})
            case UserMessage():
                return encode({"role": "user", "content": message.text})
            case AssistantMessage():
                return encode(self._assistant(message, form, self._for(form.reader.model)))
            case ToolMessage():
                return encode({"role": "tool", "tool_call_id": form.ids[0], "content": message.text})

    def _assistant(self, message: AssistantMessage, form: Form, dialect: Dialect) -> dict[str, Any]:
        encoded: dict[str, Any] = {
            "role": "assistant",
            "content": message.text or (None if dialect.null_content else ""),
        }
        native = form.native(message)
        kept = json.loads(native.items[0]) if native and native.items and dialect.extras else {}
        encoded |= kept.get("message", {})
        if dialect.details_demanded and "reasoning_details" not in encoded:
            encoded["reasoning_details"] = [{"type": "reasoning.text", "text": message.thinking or NOT_SHOWN}]
        # DeepSeek and Moonshot refuse a history with calls that lack their reasoning, and then answers without it too
        thoughts = message.thinking if form.own else ""
        if dialect.reasoning_field and (dialect.thoughts_demanded or (thoughts and message.tool_calls)):
            encoded[dialect.reasoning_field] = thoughts or NOT_SHOWN
        if not message.tool_calls:
            return encoded | {"content": nonempty_text(message)}
        encoded["tool_calls"] = calls = [self._call(*call) for call in zip(message.tool_calls, form.ids, strict=True)]
        for call, extras in zip(calls, kept.get("tool_calls", ()), strict=False):
            call |= extras
        if dialect.signatures_demanded:
            for call in calls:
                call.setdefault("extra_content", _UNSIGNED)
        return encoded

    def _call(self, call: Any, provider_call_id: str) -> dict[str, Any]:
        # OpenAI refuses a history with names of another form, and a model can write any
        function = {"name": self._names.to_wire(call.name), "arguments": history_arguments_text(call.arguments)}
        return {"id": provider_call_id, "type": "function", "function": function}
