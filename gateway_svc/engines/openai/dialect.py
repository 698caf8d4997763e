"""What a server with OpenAI's chat completions accepts, learned from its refusals.

Servers differ in fields that one requires and another refuses. The first request suits most of them; a refusal that
names a field teaches the rest, and the request is retried. What is learned holds until the gateway restarts.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from gateway_svc.engines.wire.encoding import longest_description

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Where compatible servers put reasoning: DeepSeek, Moonshot and llama.cpp; vLLM, Ollama and OpenRouter; some proxies
in front of reasoning models."""
KEPT_FIELDS = ("extra_content", "reasoning_details", "thinking_blocks", "provider_specific_fields")
"""What Gemini, OpenRouter and LiteLLM send beside text and calls, and require back."""
STRICT_HOSTS = {
    "api.openai.com": "",
    "api.mistral.ai": "",
    "api.groq.com": "reasoning",
    "api.cerebras.ai": "reasoning",
}
"""Hosts that refuse a message with an unknown field, and the field in which they accept reasoning."""

_MISSING = re.compile(r"missing|must be (passed|provided|preserved|included)|required|preserved", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"unsupported|not supported|unknown|unrecognized|unexpected|extra (inputs|fields)|not permitted|not allowed",
    re.IGNORECASE,
)
_NULL = re.compile(r"content.{0,80}(\b(null|none)\b|<nil>|\b(valid|be a) string)|NoneType", re.IGNORECASE)
"""Also in the words of LM Studio and of servers that check with pydantic."""
_CALL_ID = re.compile(r"tool[ _]?call[ _]?id|tool_calls?\S*\.id\b|tool_use\S*\.id\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one model of a server accepts."""

    reasoning_field: str = REASONING_FIELDS[0]
    """The field for reasoning that is sent back; empty: none."""
    strict: bool = False
    """Whether to send back no field that the server may not know."""
    stream_options: bool = True
    thoughts_demanded: bool = False
    """Whether each answer needs reasoning, other models' answers included."""
    signatures_demanded: bool = False
    """Whether each call needs a signature, as Gemini's do."""
    details_demanded: bool = False
    """Whether each answer needs `reasoning_details`, as with OpenRouter in front of Gemini."""
    extras: bool = True
    """Whether to send back the fields that the server itself sent beside text and calls."""
    null_content: bool = True
    """Whether the content of an answer that has only calls is null, not empty text."""
    keeps_ids: bool = True
    """Whether it accepts its own ids of calls."""
    description_characters: int | None = None
    """The longest description of a tool that it accepts; None: any."""

    def learn(self, refusal: str) -> "tuple[Dialect, Literal['server', 'model']] | None":
        """What a refusal teaches, and whether that holds for all models of the server; None: nothing new."""
        said = refusal.lower()
        missing, unknown = _MISSING.search(said) is not None, _UNKNOWN.search(said) is not None
        reasoning = next((name for name in REASONING_FIELDS[:2] if name in said), "")
        lessons: list[tuple[bool, Dialect, Literal["server", "model"]]] = [
            ("stream_options" in said, replace(self, stream_options=False), "server"),
            ("thought_signature" in said and missing, replace(self, signatures_demanded=True), "model"),
            ("reasoning_details" in said.replace(" ", "_") and missing, replace(self, details_demanded=True), "model"),
            (
                any(name in said for name in KEPT_FIELDS) and unknown,
                replace(self, extras=False, signatures_demanded=False, details_demanded=False),
                "model",
            ),
            (
                bool(reasoning) and missing,
                replace(self, reasoning_field=reasoning or self.reasoning_field, thoughts_demanded=True),
                "model",
            ),
            (bool(reasoning) and unknown, replace(self, reasoning_field="", thoughts_demanded=False), "model"),
            (
                (characters := longest_description(refusal)) is not None,
                replace(self, description_characters=characters),
                "server",
            ),
            (_NULL.search(refusal) is not None, replace(self, null_content=False), "server"),
            (_CALL_ID.search(said) is not None, replace(self, keeps_ids=False), "server"),
        ]
        return next(((learned, scope) for fits, learned, scope in lessons if fits and learned != self), None)

    def share(self, learned: "Dialect") -> "Dialect":
        """Adopts what holds for all models of a server."""
        return replace(
            self,
            stream_options=learned.stream_options,
            keeps_ids=learned.keeps_ids,
            null_content=learned.null_content,
            description_characters=learned.description_characters,
        )
