"""OpenAI's Responses API, POST /responses under any base URL: OpenAI, llama.cpp, vLLM, LM Studio, Ollama.

The server keeps nothing (`store: false`): every request has the whole conversation. Reasoning comes encrypted and goes
back unchanged, in order, to the same model of the same server; a function call may be refused without the reasoning
before it. Any other model that continues the conversation gets the text and calls.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from functools import partial

import structlog

from gateway_svc.engines import StepEvent
from gateway_svc.engines.openai.response_answer import ResponseAnswer
from gateway_svc.engines.openai.response_items import MAX_ID_CHARACTERS
from gateway_svc.engines.wire.encoding import (
    encode,
    history_arguments_text,
    join,
    longest_description,
    shorten_descriptions,
)
from gateway_svc.engines.wire.history import Encoded, Form, Reader, fit, nonempty_text, sender
from gateway_svc.engines.wire.http import ModelServerClient
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.patience import PATIENCE, Patience
from gateway_svc.errors import EngineRejected
from gateway_svc.http_client import Tls, tls_context
from gateway_svc.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from recording.calls import ToolCall

_ID_FORM = re.compile(rf".{{1,{MAX_ID_CHARACTERS}}}", re.DOTALL)
_HEAD = {"stream": True, "store": False}
_ENCRYPTED = {"include": ["reasoning.encrypted_content"]}

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
        tls: Tls = tls_context,
    ) -> None:
        """`base_url` ends where `/responses` begins, such as `https://api.openai.com/v1`."""
        self.default_model = default_model
        self._names = WireNames()
        self._without_thoughts: set[str] = set()
        """Models that cannot encrypt their reasoning."""
        self._description_characters: int | None = None
        """The longest description of a tool that the server accepts, learned from refusals."""
        self._client = ModelServerClient(
            self.name, base_url, "/responses", models="/models", patience=patience, api_key=api_key, tls=tls
        )
        self._origin = f"responses {self._client.address}"

    def encode_message(self, message: Message) -> Encoded:
        """Encodes a message as one or several items, separated by commas."""
        return Encoded(message, self._encode, self._reader(sender(message, self.default_model)))

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        return encode(
            [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    # the default is true here, and then OpenAI refuses a schema with optional fields
                    "strict": False,
                }
                for tool in self._names.offered(tools)
            ]
        )

    async def step(self, model: str, messages: Sequence[Encoded], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        with_thoughts = model not in self._without_thoughts
        while True:
            try:
                async with aclosing(self._ask(model, messages, tools, with_thoughts=with_thoughts)) as events:
                    async for event in events:
                        yield event
                return
            except EngineRejected as refusal:
                characters = longest_description(refusal.reason)
                if characters is not None and characters < (self._description_characters or characters + 1):
                    self._description_characters = characters
                    log.warning("engine.descriptions_shortened", engine=self.name, model=model, characters=characters)
                elif with_thoughts and (said := _refused_thoughts(refusal)):
                    with_thoughts = False
                    if said == "unsupported":
                        self._without_thoughts.add(model)
                    log.warning("engine.thoughts_refused", engine=self.name, model=model, reason=said)
                else:
                    raise

    async def aclose(self) -> None:
        await self._client.aclose()

    def _ask(
        self, model: str, messages: Sequence[Encoded], tools: bytes, *, with_thoughts: bool
    ) -> AsyncGenerator[StepEvent, None]:
        head = {"model": model, **_HEAD, **(_ENCRYPTED if with_thoughts else {})}
        history = fit(messages, self._reader(model, with_thoughts=with_thoughts))
        tools = shorten_descriptions(tools, self._description_characters)
        body = join(head, history, tools, field=b"input")
        return self._client.step(model, body, partial(ResponseAnswer, self._names, self._origin))

    def _reader(self, model: str, *, with_thoughts: bool = True) -> Reader:
        return Reader(self._origin, model, with_thoughts, id_form=_ID_FORM)

    def _encode(self, message: Message, form: Form) -> bytes:
        match message:
            case SystemMessage():
                return encode(_said("system", "input_text", message.text))
            case UserMessage():
                return encode(_said("user", "input_text", message.text))
            case AssistantMessage():
                native = form.native(message)
                if native and native.items and form.reader.rules:
                    return ",".join(_with_ids(native.items, form.ids)).encode("utf-8", "replace")
                return b",".join(map(encode, self._plain(message, form.ids)))
            case ToolMessage():
                return encode({"type": "function_call_output", "call_id": form.ids[0], "output": message.text})

    def _plain(self, message: AssistantMessage, ids: Sequence[str]) -> Iterable[dict[str, object]]:
        if message.text.strip() or not message.tool_calls:
            yield _said("assistant", "output_text", nonempty_text(message))
        yield from map(self._call, message.tool_calls, ids)

    def _call(self, call: ToolCall, call_id: str) -> dict[str, object]:
        return {
            "type": "function_call",
            "call_id": call_id,
            "name": self._names.to_wire(call.name),
            "arguments": history_arguments_text(call.arguments),
        }


def _said(role: str, kind: str, text: str) -> dict[str, object]:
    # llama.cpp accepts an answer only in parts, OpenAI either way
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _with_ids(items: Iterable[str], ids: Sequence[str]) -> Iterable[str]:
    """Items as they came, except for the ids of their calls."""
    left = iter(ids)
    for item in items:
        parsed = json.loads(item)
        if parsed["type"] == "function_call" and (sent := next(left)) != parsed["call_id"]:
            yield encode(parsed | {"call_id": sent}).decode()
        else:
            yield item


def _refused_thoughts(refusal: EngineRejected) -> str:
    """Why a server refuses a request because of its encrypted reasoning; empty if the reason is another.

    OpenAI says "Encrypted content is not supported with this model" of a model that does not reason, and "The encrypted
    content … could not be verified" of reasoning that another key or deployment has encrypted.
    """
    said = refusal.reason.lower()
    if refusal.http_status != 400 or "encrypted" not in said:
        return ""
    return "unsupported" if "not supported" in said else "unverified"
