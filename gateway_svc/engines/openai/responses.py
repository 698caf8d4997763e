"""OpenAI's Responses API, POST /responses under any base URL: OpenAI, llama.cpp, vLLM, LM Studio, Ollama.

It is used without a memory of its own (`store: false`): every request tells the whole conversation. What a model has
thought comes encrypted and is sent back as it came, in order, to the same model of the same server; a function call may
be refused without the thought that led to it. Whoever else goes on with the conversation is told the text and calls.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from urllib.parse import urlsplit

import structlog

from gateway_svc.engines import StepEvent
from gateway_svc.engines.openai.response_answer import ResponseAnswer
from gateway_svc.engines.wire.encoding import encode, history_arguments_text, join
from gateway_svc.engines.wire.http import PATIENCE, ModelServerClient, Patience
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.streams import decoder
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
from recording.calls import ToolCall

_HEAD = {"stream": True, "store": False}
_ENCRYPTED = {"include": ["reasoning.encrypted_content"]}
_NOTHING_SAID = "(no answer)"
"""In place of an answer without text and calls, since servers differ in whether one may be empty."""
_EITHER = b"\0"
"""Stands ahead of a message that has two forms, and between them: JSON holds none."""

log = structlog.get_logger(__name__)


class ResponsesEngine:
    """A server that speaks OpenAI's Responses API (the Engine protocol)."""

    name = "openai"

    def __init__(
        self,
        base_url: str,
        default_model: str,
        *,
        api_key: str | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        """`base_url` ends where `/responses` begins, such as `https://api.openai.com/v1`."""
        self.default_model = default_model
        url = urlsplit(base_url)
        self._origin = f"responses {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"
        self._names = WireNames()
        self._without_thoughts: set[str] = set()
        """Models that cannot give their thoughts encrypted."""
        self._client = ModelServerClient(self.name, base_url, "/responses", patience=patience, api_key=api_key)

    def encode_message(self, message: Message) -> bytes:
        """See Engine. One message may be several items, divided by commas."""
        match message:
            case SystemMessage():
                return encode(_said("system", "input_text", message.text))
            case UserMessage():
                return encode(_said("user", "input_text", message.text))
            case AssistantMessage():
                return self._assistant(message)
            case ToolMessage(tool_call_id, _, result):
                return encode({"type": "function_call_output", "call_id": tool_call_id, "output": result})

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        """See Engine."""
        self._names.offer(tool.name for tool in tools)
        return encode(
            [
                {
                    "type": "function",
                    "name": self._names.to_wire(tool.name),
                    "description": tool.description,
                    "parameters": tool.parameters,
                    # left out it means true here, and then OpenAI refuses a schema with optional fields
                    "strict": False,
                }
                for tool in tools
            ]
        )

    async def step(self, model: str, messages: Sequence[bytes], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        """See Engine."""
        if model not in self._without_thoughts:
            try:
                body = join({"model": model, **_HEAD, **_ENCRYPTED}, _for_model(messages, model), tools, field=b"input")
                async with aclosing(self._ask(model, body)) as events:
                    async for event in events:
                        yield event
                return
            except EngineRejected as refusal:
                if not (said := _refused_thoughts(refusal)):
                    raise
                if said == "unsupported":
                    self._without_thoughts.add(model)
                log.warning("engine.thoughts_refused", engine=self.name, model=model, reason=said)
        body = join({"model": model, **_HEAD}, _for_model(messages, None), tools, field=b"input")
        async with aclosing(self._ask(model, body)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """See Engine."""
        await self._client.aclose()

    def _ask(self, model: str, body: bytes) -> AsyncGenerator[StepEvent, None]:
        answer: Callable[[], ResponseAnswer] = partial(ResponseAnswer, self._names, self._origin)
        return self._client.step(model, body, decoder, answer)

    def _assistant(self, message: AssistantMessage) -> bytes:
        plain = b",".join(map(encode, self._plain(message)))
        native = message.native
        if native is None or native.origin != self._origin:
            return plain
        return _EITHER.join((b"", native.model.encode("utf-8", "replace"), _native(native), plain))

    def _plain(self, message: AssistantMessage) -> Iterable[dict[str, object]]:
        if message.text or not message.tool_calls:
            yield _said("assistant", "output_text", message.text or _NOTHING_SAID)
        yield from map(self._call, message.tool_calls)

    def _call(self, call: ToolCall) -> dict[str, object]:
        return {
            "type": "function_call",
            "call_id": call.tool_call_id,
            "name": self._names.to_wire(call.name),
            "arguments": history_arguments_text(call.arguments),
        }


def _said(role: str, kind: str, text: str) -> dict[str, object]:
    # llama.cpp takes an answer in parts only, OpenAI either
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _native(native: Native) -> bytes:
    return ",".join(native.items).encode("utf-8", "replace")


def _for_model(messages: Iterable[bytes], model: str | None) -> list[bytes]:
    """The messages as a model wants them: with its own answers as it gave them, the others by text and calls."""
    wanted = model and model.encode("utf-8", "replace")
    chosen = []
    for message in messages:
        if message.startswith(_EITHER):
            _, made_by, native, plain = message.split(_EITHER)
            chosen.append(native if made_by == wanted else plain)
        else:
            chosen.append(message)
    return chosen


def _refused_thoughts(refusal: EngineRejected) -> str:
    """Why a server refuses a request for its encrypted thoughts; empty where that is not why.

    OpenAI says "Encrypted content is not supported with this model" of a model that does not think, and "The encrypted
    content … could not be verified" of thoughts that another key or deployment has encrypted.
    """
    said = refusal.reason.lower()
    if refusal.http_status != 400 or "encrypted" not in said:
        return ""
    return "unsupported" if "not supported" in said else "unverified"
