"""An engine in one file: llama.cpp's own POST /completion, which continues a text and knows no tools."""

from collections.abc import AsyncGenerator, Sequence

from pydantic_settings import SettingsConfigDict

from gateway_svc.engines import StepEvent, StepResult
from gateway_svc.engines.kinds import EngineKind, HttpEngineSettings
from gateway_svc.engines.wire.answer import Answer
from gateway_svc.engines.wire.encoding import encode
from gateway_svc.engines.wire.fields import Fields, count, text
from gateway_svc.engines.wire.http import ModelServerClient
from gateway_svc.engines.wire.patience import PATIENCE
from gateway_svc.messages import AssistantMessage, Message, ToolDefinition
from recording.calls import Usage


class CompletionSettings(HttpEngineSettings):
    model_config = SettingsConfigDict(env_prefix="GATEWAY_COMPLETION_")


class CompletionEngine:
    name = "completion"

    def __init__(self, base_url: str, default_model: str) -> None:
        self.default_model = default_model
        self._client = ModelServerClient(self.name, base_url, "/completion", patience=PATIENCE)

    def encode_message(self, message: Message) -> str:
        return f"{type(message).__name__}: {message.text}\n"

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        return b""

    def step(self, model: str, messages: Sequence[str], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        body = encode({"prompt": "".join(messages), "stream": True})
        return self._client.step(model, body, _Answer)

    async def aclose(self) -> None:
        await self._client.aclose()


class _Answer(Answer):
    def __init__(self) -> None:
        self._text: list[str] = []
        self._usage = Usage(complete=False)

    def take(self, chunk: Fields) -> str:
        self._text.append(text(chunk.get("content")))
        if chunk.get("stop") is True:
            self.complete = self.ended = True
            self._usage = Usage(count(chunk.get("tokens_evaluated")) or 0, count(chunk.get("tokens_predicted")) or 0)
        return self._text[-1]

    def result(self, model: str) -> StepResult:
        return StepResult(AssistantMessage("".join(self._text)), self._usage, model)


def _build(settings: CompletionSettings) -> CompletionEngine:
    return CompletionEngine(settings.url or "", settings.model or "")


KIND = EngineKind(name="completion", settings=CompletionSettings, build=_build, provider="llama.cpp")
