"""Ollama: POST /api/chat, as its api/types.go and docs/api describe it.

Its own API rather than its OpenAI-compatible one, since only here can the size of the context be set.
"""

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.engines import StepEvent, StepResult
from gateway_svc.engines.kinds import EngineKind, HttpEngineSettings
from gateway_svc.engines.wire.answer import Answer, BadEnd
from gateway_svc.engines.wire.encoding import build_calls, encode, encode_tools, history_arguments, join
from gateway_svc.engines.wire.failures import presentable
from gateway_svc.engines.wire.fields import Fields, clean, fields, items, label, maybe_count, text
from gateway_svc.engines.wire.history import Encoded, Form, Reader, fit, nonempty_text, sender
from gateway_svc.engines.wire.http import ModelServerClient
from gateway_svc.engines.wire.kept_text import KeptText
from gateway_svc.engines.wire.patience import PATIENCE, Patience
from gateway_svc.engines.wire.usage import TokenCounts
from gateway_svc.http_client import Tls, tls_context
from gateway_svc.messages import (
    AssistantMessage,
    Message,
    Native,
    SystemMessage,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from service_kit.bounds import ARGUMENTS, CALLS
from service_kit.setting_types import Count

NAME = "ollama"

Think = bool | Literal["low", "medium", "high", "max"]


class OllamaSettings(HttpEngineSettings):
    """The variables GATEWAY_OLLAMA_…"""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_OLLAMA_")

    num_ctx: Count = Field(32768, ge=512, description="tokens; Ollama's own default silently truncates")

    @property
    def is_local(self) -> bool:
        return True

    @property
    def context_limit(self) -> int | None:
        return self.num_ctx


class OllamaEngine:
    """A server that speaks Ollama's API (the Engine protocol)."""

    name = NAME

    def __init__(
        self,
        base_url: str,
        default_model: str,
        *,
        num_ctx: int = 32768,
        think: Think | None = None,
        patience: Patience = PATIENCE,
        tls: Tls = tls_context,
    ) -> None:
        """`base_url` is such as `http://host:11434`; `num_ctx` is the context in tokens, for question and answer.

        `think` None lets the server decide whether a model thinks; asking a model that cannot is an error.
        """
        self.default_model = default_model
        # truncate: by default a server silently drops old messages, and answers another conversation than this one
        self._head: dict[str, Any] = {"stream": True, "truncate": False, "options": {"num_ctx": num_ctx}}
        if think is not None:
            self._head["think"] = think
        self._client = ModelServerClient(
            self.name, base_url, "/api/chat", models="/api/tags", patience=patience, tls=tls
        )
        self._origin = f"ollama {self._client.address}"

    def encode_message(self, message: Message) -> Encoded:
        return Encoded(message, _encode, Reader(self._origin, sender(message, self.default_model)))

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        return encode_tools(tools)

    def step(self, model: str, messages: Sequence[Encoded], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        body = join({"model": model, **self._head}, fit(messages, Reader(self._origin, model)), tools)
        return self._client.step(model, body, partial(_Answer, self._origin))

    async def aclose(self) -> None:
        await self._client.aclose()


def _encode(message: Message, form: Form) -> bytes:
    match message:
        case SystemMessage():
            return encode({"role": "system", "content": message.text})
        case UserMessage():
            return encode({"role": "user", "content": message.text})
        case AssistantMessage():
            return encode(_assistant(message, form))
        case ToolMessage(_, tool_name, result):
            return encode({"role": "tool", "tool_call_id": form.ids[0], "tool_name": tool_name, "content": result})


def _assistant(message: AssistantMessage, form: Form) -> dict[str, Any]:
    if not message.tool_calls:
        return {"role": "assistant", "content": nonempty_text(message)}
    encoded: dict[str, Any] = {"role": "assistant", "content": message.text}
    # within a turn a model continues its reasoning from before its calls; later turns do not need it
    if message.thinking and form.own:
        encoded["thinking"] = message.thinking
    encoded["tool_calls"] = [
        {"id": provider_call_id, "function": {"name": call.name, "arguments": history_arguments(call.arguments)}}
        for call, provider_call_id in zip(message.tool_calls, form.ids, strict=True)
    ]
    return encoded


class _Answer(Answer):
    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._text: list[str] = []
        self._thinking = KeptText()
        self._calls: list[tuple[str, str, str]] = []
        self._model = ""
        self._finish: Literal["stop", "length"] = "stop"
        self._tokens = TokenCounts()

    def take(self, chunk: Fields) -> str:
        message = fields(chunk.get("message"))
        piece = clean(text(message.get("content")) or label(chunk.get("response")))
        self._text.append(piece)
        self._thinking.append(text(message.get("thinking")) or label(message.get("reasoning")))
        # calls are not fragmented, and their indexes need not be unique
        told = message.get("tool_calls")
        for call in map(_call, [told] if isinstance(told, dict) else items(told)):
            self.tally.add(CALLS)
            if call[0] and call in self._calls:  # told again at the end
                continue
            self.tally.add(ARGUMENTS, len(call[2]))
            self._calls.append(call)
        self._model = label(chunk.get("model")) or self._model
        self._tokens.put("input", maybe_count(chunk.get("prompt_eval_count")))
        self._tokens.put("output", maybe_count(chunk.get("eval_count")))
        reason = text(chunk.get("done_reason")).lower()
        counted = maybe_count(chunk.get("eval_count")) is not None
        # newer servers tell a reason, some of them no `done`; older ones end with their counts
        if reason or (chunk.get("done") is True and counted):
            if reason not in ("", "stop", "length") and not (reason == "tool_calls" and self._calls):
                raise BadEnd(f"ended its answer for the reason {presentable(reason)[:100]}")
            self.complete = True
            self.ended = True
            self._finish = "length" if reason == "length" else "stop"
        return piece

    def result(self, model: str) -> StepResult:
        said, thought, calls = "".join(self._text), self._thinking.text(), build_calls(self._calls)
        answered = bool(said or thought or calls)
        usage = self._tokens.usage(answered=answered)
        if not answered and not usage.output_tokens and self._finish == "stop":
            raise BadEnd("ended its answer without having said anything")
        message = AssistantMessage(said, thought, calls, Native(self._origin, model, ()))
        return StepResult(message, usage, self._model or model, self._finish)


def _call(call: object) -> tuple[str, str, str]:
    function = fields(fields(call).get("function")) or fields(call)
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, str) else encode({} if arguments is None else arguments).decode()
    return text(fields(call).get("id")), text(function.get("name")), written or "{}"


def _build(settings: OllamaSettings) -> OllamaEngine:
    return OllamaEngine(settings.url or "", settings.model or "", num_ctx=settings.num_ctx, tls=settings.tls)


KIND = EngineKind(name=NAME, settings=OllamaSettings, build=_build, provider=NAME)
