"""The protocol of a wire format, and what the formats share."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from demo.script import Script, Step

BYTES_PER_TOKEN = 4
"""A request's tokens are estimated, since an exact count would cost more than everything else here."""

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_MODEL = re.compile(rb'"model": ?"([^"\\]*)"')
_FLAGS = {name: re.compile(rb'"%b": ?(true|false)' % name.encode()) for name in ("stream", "include_usage")}
_TOKEN = re.compile(r"\s*\w{1,6}|\s*[^\w\s]+|\s+")


class Rejected(Exception):
    """The real server would refuse the request, with this error."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one answer."""

    input: int
    output: int
    cached: int
    reasoning: int


class Format(Protocol):
    """A server's wire format. Requests and answers are JSON."""

    stream_type: str
    """The content type of a stream."""

    def check(self, request: dict[str, Any], script: Script, authorization: str) -> None:
        """Raises Rejected if the real server would refuse the request."""
        ...

    def roles(self, request: dict[str, Any]) -> list[str]:
        """The roles of the conversation's messages."""
        ...

    def check_size(self, tokens: int, context_tokens: int | None) -> None:
        """Raises Rejected if the real server would refuse a request of this many tokens."""
        ...

    def streams(self, request: dict[str, Any]) -> bool:
        """Whether the answer is to be streamed."""
        ...

    def chunks(self, request: dict[str, Any], step: Step, counts: Counts) -> list[bytes]:
        """The answer as a stream."""
        ...

    def whole(self, request: dict[str, Any], step: Step, counts: Counts) -> bytes:
        """The answer in one piece."""
        ...

    def error(self, rejected: Rejected) -> bytes:
        """The body of an error response."""
        ...

    def error_chunk(self, message: str, status: int | None) -> bytes:
        """An error in the middle of a stream."""
        ...


def encode(value: object) -> bytes:
    """JSON as the real servers write it: compact, in UTF-8."""
    return _encoder.encode(value).encode()


def tokens_of(text: str) -> list[str]:
    """Splits text into the pieces that a model would stream; joined, they are the text again."""
    return _TOKEN.findall(text)


def count(step: Step, request_bytes: int, context_tokens: int | None = None) -> Counts:
    """The token counts of an answer: the script's or the real ones, at most as many as the context holds."""
    told, reasoning = step.tokens, len(tokens_of(step.thinking))
    arguments = (
        call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments) for call in step.tool_calls
    )
    written = len(tokens_of(step.text)) + reasoning + sum(map(len, map(tokens_of, arguments)))
    return Counts(
        input=min(request_bytes // BYTES_PER_TOKEN, context_tokens or request_bytes)
        if told.input is None
        else told.input,
        output=written if told.output is None else told.output,
        cached=told.cached or 0,
        reasoning=reasoning if told.reasoning is None else told.reasoning,
    )


def check_pairs(messages: Sequence[Any]) -> str | None:
    """What is wrong with the pairs of calls and results in a conversation: who lacks a partner, or None.

    Servers differ in whether they refuse it; a model is misled by it in any case.
    """
    unanswered: list[Any] = []
    for message in messages:
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in unanswered:
                return f"the result {message.get('tool_call_id')!r} has no call before it"
            unanswered.remove(message.get("tool_call_id"))
        elif unanswered:
            break
        unanswered += [call.get("id") for call in message.get("tool_calls") or ()]
    return f"the calls {unanswered} have no result behind them" if unanswered else None


def skim(body: bytes) -> tuple[dict[str, Any], int]:
    """What an answer needs to know of a request, and the position in its conversation, without parsing it.

    A quoted role within some text is escaped, so that only the messages' own are found.
    """
    user = max(body.rfind(b'"role":"user"'), body.rfind(b'"role": "user"'), 0)
    answers = body.count(b'"role":"assistant"', user) + body.count(b'"role": "assistant"', user)
    model = _MODEL.search(body)
    request: dict[str, Any] = {"model": model[1].decode() if model else "scripted"}
    for name, pattern in _FLAGS.items():
        if flag := pattern.search(body):
            request[name] = flag[1] == b"true"
    request["stream_options"] = {"include_usage": request.pop("include_usage", False)}
    return request, answers


def roles_of(messages: Iterable[Any]) -> list[str]:
    """The roles of a conversation's messages."""
    return [message.get("role", "") for message in messages]


def messages_of(request: dict[str, Any]) -> Sequence[Any]:
    """The conversation of a request that has been checked."""
    messages: Sequence[Any] = request.get("messages") or ()
    return messages
