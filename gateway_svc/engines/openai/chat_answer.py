"""Assembles the chunks of one chat completion, whichever server sends them."""

from collections.abc import Callable
from typing import Any, Literal

from gateway_svc.engines import StepResult
from gateway_svc.engines.openai.dialect import REASONING_FIELDS
from gateway_svc.engines.openai.kept_parts import KeptParts
from gateway_svc.engines.wire.answer import Answer, BadEnd, SoFar
from gateway_svc.engines.wire.encoding import build_calls, encode
from gateway_svc.engines.wire.failures import presentable
from gateway_svc.engines.wire.fields import Fields, clean, fields, items, label, maybe_count, text
from gateway_svc.engines.wire.fragments import CallAssembler
from gateway_svc.engines.wire.kept_text import KeptText
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.usage import TokenCounts
from gateway_svc.errors import CallNotParsed, EngineBrokeOff
from gateway_svc.messages import AssistantMessage, Native
from service_kit.bounds import EVENT_FRAGMENTS, HELD

Finish = Literal["stop", "length", "content_filter"]

_FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "model_length": "length",  # Mistral
    "eos_token": "stop",  # Hugging Face's text-generation-inference
    "stop_sequence": "stop",
    "eos": "stop",
    "end_turn": "stop",  # proxies before Anthropic's models
    "tool_use": "stop",
    "max_tokens": "length",
    "refusal": "content_filter",
    "safety": "content_filter",  # proxies before Gemini
    "end": "stop",  # proxies before Ollama and LM Studio
    "sensitive": "content_filter",  # Z.ai
    "model_context_window_exceeded": "length",
}
"""Finish reasons that count as good ends. Any other is a failure that names the reason."""
_NOT_PARSED = frozenset(("malformed_function_call", "malformed_tool_call", "unexpected_tool_call"))
"""Gemini's reasons where it could not parse the call that it wrote, also behind `function_call_filter: `."""
NO_REASON = (
    "it ended its answer with [DONE] and no finish_reason: what is behind it broke off. If each answer ends so, it "
    "sends none: update it, set it to send one, or put a proxy before it that does (see docs/engines/openai.md)"
)
_CALLING = ("tool_calls", "function_call", "tool_use")
_KEPT_OF_MESSAGE = ("reasoning_details", "extra_content", "thinking_blocks")
_KEPT_OF_CALL = ("extra_content", "provider_specific_fields")
"""Fields that servers send beside text and calls, and want back: OpenRouter, Gemini and LiteLLM."""


class ChatAnswer(Answer):
    def __init__(self, names: WireNames, origin: str, learn_reasoning_field: Callable[[str], None]) -> None:
        """`origin` names the API and the server that the answer comes from."""
        self._names = names
        self._origin = origin
        self._learn_reasoning_field = learn_reasoning_field
        self._text: list[str] = []
        self._thinking = KeptText()
        self._said, self._thought = SoFar(), SoFar()
        self._calls = CallAssembler(self.tally)
        self._kept: dict[str, Any] = {}
        self._kept_parts: dict[str, KeptParts] = {}
        self._kept_of_calls: dict[int, dict[str, Any]] = {}
        self._model = ""
        self._finish = ""
        self._tokens = TokenCounts()

    def take(self, chunk: Fields) -> str:
        self._model = label(chunk.get("model")) or self._model
        self.count(chunk)
        return "".join(self._take_choice(fields(choice)) for choice in items(chunk.get("choices")))

    def done(self) -> None:
        """Takes `[DONE]`. Without a finish reason, it is no end: proxies send it even if their server broke off."""
        self.ended, self.is_waited_for = bool(self._finish), True
        self.why_incomplete = NO_REASON

    def count(self, chunk: Fields) -> None:
        self._tokens.take(chunk.get("usage"))
        if isinstance(groq := chunk.get("x_groq"), dict):
            self._tokens.take(groq.get("usage"))

    def result(self, model: str) -> StepResult:
        asked = self._calls.told()
        if self._finish in _CALLING and not asked:
            raise BadEnd("ended its answer to call tools, and called none")
        finish = _FINISHES[self._finish]
        calls = build_calls((call.id, self._names.to_own(call.name), call.arguments or "{}") for call in asked)
        said, thought = "".join(self._text), self._thinking.text()
        answered = bool(said or thought or calls)
        usage = self._tokens.usage(answered=answered)
        if not answered and not usage.output_tokens and finish == "stop":
            raise BadEnd("ended its answer without having said anything")
        self._kept |= {name: parts.whole() for name, parts in self._kept_parts.items()}
        kept = {"message": self._kept, "tool_calls": [self._kept_of_calls.get(call.number, {}) for call in asked]}
        extras = (encode(kept).decode(),) if self._kept or self._kept_of_calls else ()
        message = AssistantMessage(said, thought, calls, Native(self._origin, model, extras))
        return StepResult(message, usage, self._model or model, finish)

    def _take_choice(self, choice: Fields) -> str:
        if maybe_count(choice.get("index")):  # only one answer was asked for
            return ""
        self._tokens.take(choice.get("usage"))  # Moonshot's place for it
        finish = _reason(choice.get("finish_reason"))  # some servers send an empty one until then
        said = self._take_delta(fields(choice.get("delta")), last=bool(finish))
        said += self._take_message(fields(choice.get("message")))
        if "delta" not in choice and "message" not in choice:  # the legacy completions API
            said += self._take_delta({"content": choice.get("text")}, last=bool(finish))
        if finish:
            if finish not in _FINISHES:
                native = label(choice.get("native_finish_reason"))  # OpenRouter's own reason is then `error`
                unparsed = _NOT_PARSED.intersection(word.lower().rpartition(" ")[2] for word in (finish, native))
                kind = CallNotParsed if unparsed else EngineBrokeOff
                raise BadEnd(f"ended its answer for the reason {presentable(native or finish)[:100]}", kind)
            self.complete = True
            if _FINISHES.get(self._finish, "stop") == "stop":  # proxies may add an end as if all were well
                self._finish = finish
        return said

    def _take_delta(self, delta: Fields, *, last: bool) -> str:
        for name in REASONING_FIELDS:
            if thought := _part_text(delta.get(name)):
                self._thinking.append(self._thought.new(thought))
                self._learn_reasoning_field(name)
                break
        self._keep(delta)
        told = delta.get("tool_calls")
        fragments = [told] if isinstance(told, dict) else items(told)
        EVENT_FRAGMENTS.check(len(fragments))
        for fragment in map(fields, fragments):
            self._take_call(fragment)
        if delta.get("function_call") and not told:  # the former name of tool_calls; some send both
            self._take_call({"index": 0, "function": delta["function_call"]})
        piece = clean(self._content(delta.get("content")) or text(delta.get("refusal")))
        if last and len(self._text) > 1 and piece == "".join(self._text):
            return ""  # the whole answer once more
        if piece := self._said.new(piece):
            self._text.append(piece)
        return piece

    def _take_message(self, message: Fields) -> str:
        """Takes a whole message: from a server that does not stream, or a repetition at the end of a stream."""
        if not message:
            return ""
        streamed = "".join(self._text)
        left_out = {"tool_calls", "function_call"} if self._calls else set()
        left_out |= set(REASONING_FIELDS) if self._thinking else set()
        whole = clean(self._content(message.get("content")) or text(message.get("refusal")))
        rest = {name: value for name, value in message.items() if name not in {*left_out, "content", "refusal"}}
        self._take_delta(rest, last=False)
        if streamed and not whole.startswith(streamed):
            return ""
        if piece := whole[len(streamed) :]:
            self._text.append(piece)
        return piece

    def _take_call(self, fragment: Fields) -> None:
        at = self._calls.add(fragment)
        kept = {name: fragment[name] for name in _KEPT_OF_CALL if fragment.get(name)}
        if kept:
            self.tally.add(HELD, len(encode(kept)))
            self._kept_of_calls.setdefault(at, {}).update(kept)

    def _keep(self, delta: Fields) -> None:
        for name in _KEPT_OF_MESSAGE:
            if not (value := delta.get(name)):
                continue
            self.tally.add(HELD, len(encode(value)))
            if isinstance(value, list):
                self._kept_parts.setdefault(name, KeptParts()).add(value)
            else:
                self._kept[name] = value

    def _content(self, content: object) -> str:
        """The text of a message. Mistral and Databricks send it in parts, with the reasoning among them."""
        if not isinstance(content, list):
            return _part_text(content) if isinstance(content, dict) else text(content)
        said = []
        for part in map(fields, content):
            thoughts = part.get("thinking") or part.get("summary")
            for thought in [{"text": thoughts}] if isinstance(thoughts, str) else items(thoughts):
                self._thinking.append(text(fields(thought).get("text")))
            if "reasoning" in label(part.get("type")):
                self._thinking.append(text(part.get("text")))
            else:
                said.append(text(part.get("text")) or text(part.get("refusal")))
        return "".join(said)


def _reason(reason: object) -> str:
    """Why an answer ended; empty if it has not. SGLang's native format sends an object."""
    told = text(reason.get("type") if isinstance(reason, dict) else reason)
    if told.startswith("content_filter: "):  # Gemini's, which says why
        return "content_filter"
    return "" if told.lower() in ("", "null", "none") else told.lower() if told.lower() in _FINISHES else told


def _part_text(part: object) -> str:
    """A text, possibly inside an object. Any other form of reasoning counts as empty."""
    return label(part.get("text") or part.get("content")) if isinstance(part, dict) else label(part)
