"""Ollama: POST /api/chat, as its api/types.go and docs/api describe it.

Its own API rather than the one that it shares with OpenAI, since only here can the size of the context be set.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.engines import StepEvent, StepResult
from gateway_svc.engines.kinds import EngineKind, HttpEngineSettings
from gateway_svc.engines.wire.encoding import build_calls, encode, encode_tools, history_arguments, join
from gateway_svc.engines.wire.fields import Fields, clean, count, fields, items, text
from gateway_svc.engines.wire.http import PATIENCE, ModelServerClient, Patience
from gateway_svc.engines.wire.streams import LineDecoder
from gateway_svc.messages import AssistantMessage, Message, SystemMessage, ToolDefinition, ToolMessage, UserMessage
from recording.calls import Usage

NAME = "ollama"

Think = bool | Literal["low", "medium", "high", "max"]


class OllamaSettings(HttpEngineSettings):
    """The variables GATEWAY_OLLAMA_…"""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_OLLAMA_")

    num_ctx: int = Field(32768, ge=512, description="tokens; what Ollama would choose truncates in silence")

    @property
    def is_local(self) -> bool:
        """See HttpEngineSettings."""
        return True

    @property
    def context_limit(self) -> int | None:
        """See HttpEngineSettings."""
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
    ) -> None:
        """`base_url` is such as `http://host:11434`; `num_ctx` is the context in tokens, for question and answer.

        `think` None leaves it to the server whether a model thinks; to say it to a model that cannot is an error.
        """
        self.default_model = default_model
        # truncate: by default a server drops old messages in silence, and answers to another conversation than this one
        self._head: dict[str, Any] = {"stream": True, "truncate": False, "options": {"num_ctx": num_ctx}}
        if think is not None:
            self._head["think"] = think
        self._client = ModelServerClient(self.name, base_url, "/api/chat", patience=patience)

    def encode_message(self, message: Message) -> bytes:
        """See Engine."""
        match message:
            case SystemMessage():
                return encode({"role": "system", "content": message.text})
            case UserMessage():
                return encode({"role": "user", "content": message.text})
            case AssistantMessage():
                return encode(_assistant(message))
            case ToolMessage(tool_call_id, tool_name, result):
                return encode({"role": "tool", "tool_call_id": tool_call_id, "tool_name": tool_name, "content": result})

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        """See Engine."""
        return encode_tools(tools)

    def step(self, model: str, messages: Sequence[bytes], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        """See Engine."""
        body = join({"model": model, **self._head}, messages, tools)
        return self._client.step(model, body, lambda _: LineDecoder(), _Answer)

    async def aclose(self) -> None:
        """See Engine."""
        await self._client.aclose()


def _assistant(message: AssistantMessage) -> dict[str, Any]:
    encoded: dict[str, Any] = {"role": "assistant", "content": message.text}
    if message.tool_calls:
        # within a turn a model reasons on from what it thought before its calls; later turns can do without
        if message.thinking:
            encoded["thinking"] = message.thinking
        encoded["tool_calls"] = [
            {"id": call.tool_call_id, "function": {"name": call.name, "arguments": history_arguments(call.arguments)}}
            for call in message.tool_calls
        ]
    return encoded


class _Answer:
    """See gateway_svc.engines.wire.http.Answer."""

    def __init__(self) -> None:
        self.complete = self.ended = False
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[tuple[str, str, str]] = []
        self._model = ""
        self._finish: Literal["stop", "length"] = "stop"
        self._usage = Usage(complete=False)

    def take(self, chunk: Fields) -> str:
        message = fields(chunk.get("message"))
        piece = clean(text(message.get("content")))
        self._text.append(piece)
        self._thinking.append(text(message.get("thinking")))
        # a call comes whole, and its index need not be unique
        self._calls += map(_call, items(message.get("tool_calls")))
        self._model = text(chunk.get("model")) or self._model
        if chunk.get("done") is True:
            self.complete = self.ended = True
            self._finish = "length" if chunk.get("done_reason") == "length" else "stop"
            # a count that is missing is 0: Go's omitempty
            self._usage = Usage(count(chunk.get("prompt_eval_count")), count(chunk.get("eval_count")))
        return piece

    def result(self, model: str) -> StepResult:
        message = AssistantMessage("".join(self._text), clean("".join(self._thinking)), build_calls(self._calls))
        return StepResult(message, self._usage, self._model or model, self._finish)


def _call(call: object) -> tuple[str, str, str]:
    function = fields(fields(call).get("function"))
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, str) else encode({} if arguments is None else arguments).decode()
    return text(fields(call).get("id")), text(function.get("name")), text(written)


def _build(settings: OllamaSettings) -> OllamaEngine:
    return OllamaEngine(settings.url or "", settings.model or "", num_ctx=settings.num_ctx)


KIND = EngineKind(name=NAME, settings=OllamaSettings, build=_build, provider=NAME)
