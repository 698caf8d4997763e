"""OpenAI's chat completions, POST /chat/completions under any base URL: OpenAI, llama.cpp, vLLM, LM Studio, OpenRouter.

Shapes are those of OpenAI's API reference; what other servers do otherwise is taken too, and said where it is.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from gateway_svc.engines import StepEvent, StepResult
from gateway_svc.engines.wire.encoding import build_calls, encode, encode_tools, history_arguments_text, join
from gateway_svc.engines.wire.fields import Fields, clean, count, fields, items, text
from gateway_svc.engines.wire.fragments import CallAssembler
from gateway_svc.engines.wire.http import PATIENCE, ModelServerClient, Patience
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.streams import decoder
from gateway_svc.messages import AssistantMessage, Message, SystemMessage, ToolDefinition, ToolMessage, UserMessage
from recording.calls import ToolCall, Usage

_HEAD = {"stream": True, "stream_options": {"include_usage": True}}
_FINISHES: dict[str, Literal["length", "content_filter"]] = {"length": "length", "content_filter": "content_filter"}

_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Where compatible servers put what a model thinks: DeepSeek, Moonshot and llama.cpp; vLLM, Ollama and OpenRouter; some
proxies before models that think."""
_STRICT_HOSTS = {
    "api.openai.com": "",
    "api.mistral.ai": "",
    "api.groq.com": "reasoning",
    "api.cerebras.ai": "reasoning",
}
"""Hosts that refuse a message with a field that they do not know, and the field that they take thoughts in."""


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
    ) -> None:
        """`base_url` ends where `/chat/completions` begins, such as `https://api.openai.com/v1`."""
        self.default_model = default_model
        self._names = WireNames()
        host = urlsplit(base_url).hostname or ""
        self._strict = host in _STRICT_HOSTS
        self._reasoning_field = _STRICT_HOSTS.get(host, _REASONING_FIELDS[0])
        self._client = ModelServerClient(self.name, base_url, "/chat/completions", patience=patience, api_key=api_key)

    def encode_message(self, message: Message) -> bytes:
        """See Engine."""
        match message:
            case SystemMessage():
                return encode({"role": "system", "content": message.text})
            case UserMessage():
                return encode({"role": "user", "content": message.text})
            case AssistantMessage():
                return encode(self._assistant(message))
            case ToolMessage(tool_call_id, _, result):
                return encode({"role": "tool", "tool_call_id": tool_call_id, "content": result})

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        """See Engine."""
        self._names.offer(tool.name for tool in tools)
        return encode_tools(replace(tool, name=self._names.to_wire(tool.name)) for tool in tools)

    def step(self, model: str, messages: Sequence[bytes], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        """See Engine."""
        body = join({"model": model, **_HEAD}, messages, tools)
        return self._client.step(model, body, decoder, lambda: _Answer(self._learn_reasoning_field, self._names))

    async def aclose(self) -> None:
        """See Engine."""
        await self._client.aclose()

    def _assistant(self, message: AssistantMessage) -> dict[str, Any]:
        if not message.tool_calls:
            return {"role": "assistant", "content": message.text}
        encoded: dict[str, Any] = {"role": "assistant", "content": message.text or None}
        # DeepSeek and Moonshot refuse a history in which calls come without the thoughts that led to them
        if message.thinking and self._reasoning_field:
            encoded[self._reasoning_field] = message.thinking
        encoded["tool_calls"] = [self._call(call) for call in message.tool_calls]
        return encoded

    def _call(self, call: ToolCall) -> dict[str, Any]:
        # OpenAI refuses a history with names of another form, and a model can write any
        function = {"name": self._names.to_wire(call.name), "arguments": history_arguments_text(call.arguments)}
        return {"id": call.tool_call_id, "type": "function", "function": function}

    def _learn_reasoning_field(self, name: str) -> None:
        """A server takes thoughts back under the name that it sends them under."""
        if not self._strict:
            self._reasoning_field = name


class _Answer:
    """See gateway_svc.engines.wire.http.Answer."""

    def __init__(self, learn_reasoning_field: Callable[[str], None], names: WireNames) -> None:
        self._names = names
        self.complete = self.ended = False
        self._learn_reasoning_field = learn_reasoning_field
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls = CallAssembler()
        self._model = ""
        self._finish: Literal["stop", "length", "content_filter"] = "stop"
        self._usage = Usage(complete=False)

    def take(self, chunk: Fields) -> str:
        self._model = text(chunk.get("model")) or self._model
        if chunk.get("usage") is not None:
            self._usage = _usage(fields(chunk["usage"]))
        return "".join(self._take_choice(fields(choice)) for choice in items(chunk.get("choices")))

    def _take_choice(self, choice: Fields) -> str:
        if choice.get("index"):
            return ""
        delta = fields(choice.get("delta") or choice.get("message"))
        for name in _REASONING_FIELDS:
            if thought := text(delta.get(name)):
                self._thinking.append(thought)
                self._learn_reasoning_field(name)
                break
        for fragment in items(delta.get("tool_calls")):
            self._calls.add(fields(fragment))
        if finish := text(choice.get("finish_reason")):  # some servers send an empty one until then
            self.complete = True
            self._finish = _FINISHES.get(finish, "stop")
        piece = clean(self._content(delta.get("content")) or text(delta.get("refusal")))
        self._text.append(piece)
        return piece

    def _content(self, content: object) -> str:
        """The text of a message. Models of Mistral's that think send it in parts, their thoughts among them."""
        if not isinstance(content, list):
            return text(content)
        said = []
        for part in map(fields, content):
            thoughts = part.get("thinking")
            for thought in [{"text": thoughts}] if isinstance(thoughts, str) else items(thoughts):
                self._thinking.append(text(fields(thought).get("text")))
            said.append(text(part.get("text")))
        return "".join(said)

    def result(self, model: str) -> StepResult:
        calls = [(given, self._names.to_own(name), arguments) for given, name, arguments in self._calls.calls()]
        message = AssistantMessage("".join(self._text), clean("".join(self._thinking)), build_calls(calls))
        return StepResult(message, self._usage, self._model or model, self._finish)


def _usage(usage: Fields) -> Usage:
    read, written = fields(usage.get("prompt_tokens_details")), fields(usage.get("completion_tokens_details"))
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        # DeepSeek's own name where it gives no details
        cached_input_tokens=count(read.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))),
        reasoning_tokens=count(written.get("reasoning_tokens")),
    )
