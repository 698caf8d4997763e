"""What a server of OpenAI's chat completions takes, learned from what it refuses.

Servers differ in fields that one demands and another refuses. What is sent at first suits most; a refusal that names a
field teaches the rest, and the request is made again. What is learned holds until the gateway is started anew.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Where compatible servers put what a model thinks: DeepSeek, Moonshot and llama.cpp; vLLM, Ollama and OpenRouter; some
proxies before models that think."""
STRICT_HOSTS = {
    "api.openai.com": "",
    "api.mistral.ai": "",
    "api.groq.com": "reasoning",
    "api.cerebras.ai": "reasoning",
}
"""Hosts that refuse a message with a field that they do not know, and the field that they take thoughts in."""

_MISSING = re.compile(r"missing|must be (passed|provided|preserved|included)|required|preserved", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"unsupported|not supported|unknown|unrecognized|unexpected|extra (inputs|fields)|not permitted|not allowed",
    re.IGNORECASE,
)
_CALL_ID = re.compile(r"tool[ _]?call[ _]?id|tool_calls?\S*\.id\b|tool_use\S*\.id\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one model of a server takes."""

    reasoning_field: str = REASONING_FIELDS[0]
    """Where thoughts go back; empty: nowhere."""
    strict: bool = False
    """Whether no field goes back that the server may not know."""
    stream_options: bool = True
    thoughts_demanded: bool = False
    """Whether each call needs thoughts, those of others too."""
    signatures_demanded: bool = False
    """Whether each call needs a signature, as Gemini's do."""
    details_demanded: bool = False
    """Whether each answer needs `reasoning_details`, as OpenRouter's before Gemini do."""
    extras: bool = True
    """Whether fields go back that the server itself has sent beside text and calls."""
    keeps_ids: bool = True
    """Whether it takes the ids of calls that it gave itself."""

    def learn(self, refusal: str) -> "tuple[Dialect, Literal['server', 'model']] | None":
        """What a refusal teaches, and whether it holds for all models of the server; None: nothing new."""
        said = refusal.lower()
        missing, unknown = _MISSING.search(said) is not None, _UNKNOWN.search(said) is not None
        reasoning = next((name for name in REASONING_FIELDS[:2] if name in said), "")
        lessons: list[tuple[bool, Dialect, Literal["server", "model"]]] = [
            ("stream_options" in said, replace(self, stream_options=False), "server"),
            ("thought_signature" in said and missing, replace(self, signatures_demanded=True), "model"),
            ("reasoning_details" in said.replace(" ", "_") and missing, replace(self, details_demanded=True), "model"),
            (
                any(name in said for name in ("extra_content", "reasoning_details")) and unknown,
                replace(self, extras=False, signatures_demanded=False, details_demanded=False),
                "model",
            ),
            (
                bool(reasoning) and missing,
                replace(self, reasoning_field=reasoning or self.reasoning_field, thoughts_demanded=True),
                "model",
            ),
            (bool(reasoning) and unknown, replace(self, reasoning_field="", thoughts_demanded=False), "model"),
            (_CALL_ID.search(said) is not None, replace(self, keeps_ids=False), "server"),
        ]
        return next(((learned, scope) for fits, learned, scope in lessons if fits and learned != self), None)

    def share(self, learned: "Dialect") -> "Dialect":
        """Takes over what holds for all models of a server."""
        return replace(self, stream_options=learned.stream_options, keeps_ids=learned.keeps_ids)
