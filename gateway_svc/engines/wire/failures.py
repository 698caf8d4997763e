"""Maps a model server's failure to an error, and says whether a retry can help."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from gateway_svc.errors import (
    CallNotParsed,
    ContentRefused,
    ContextExceeded,
    EngineBrokeOff,
    EngineError,
    EngineProtocolError,
    EngineRateLimited,
    EngineRejected,
    EngineUnavailable,
    ModelNotFound,
)

MAX_QUOTED_CHARACTERS = 500
_PASSING_4XX = (408, 409, 424, 425, 429, 498)
"""Request timeout, conflict, a model that failed (Bedrock, text-generation-inference), too early, too many requests, no
capacity (Groq)."""
_SPENT_CODES = ("insufficient_quota", "exceeded_current_quota_error", "billing_not_active")
"""Codes for an account that has nothing left to spend: OpenAI, Moonshot, OpenAI."""
_SPENT = re.compile(r"insufficient balance|reached your .{0,10}usage limit", re.IGNORECASE)
"""The same in the words of Z.ai, of proxies before Moonshot, and of Ollama's cloud, whose limits last for hours."""
_STATUSES = {
    **dict.fromkeys(_SPENT_CODES, 429),
    "rate_limit_exceeded": 429,
    "slow_down": 429,
    "server_is_overloaded": 503,
    "server_error": 500,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    # Anthropic's types of errors
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status for an error code or type that arrives in the middle of a stream."""
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (window|length|size|overflow)|"
    r"(prompt|input|input text|message) (is )?too long|tokens exceed the configured limit|"
    r"longer than the maximum model|must have less than \d+ tokens|max_tokens must be at least 1, got -|"
    r"exceeds? (the )?max(imum)?[ _](input|seq|model|allowed|prompt)|"
    r"too many (input )?tokens|input token count|reduce the length|"
    r"max_prompt_tokens|exceeds? the (available|model's|maximum).{0,20}(context|tokens?|length)|maximum prompt length|"
    r"exceeds max length|exceeds the limit of \d|model token limit|range of input length|tokens.{0,30}must be <=|"
    r"request too large for|reduce your message size|context shift is disabled",
    re.IGNORECASE,
)
_NOT_PARSED_STATUSES = (400, 422, 500)
_TOO_LONG_STATUSES = (400, 422, 500)
_LARGER_THAN_LIMIT = "request too large for"
"""What OpenAI says with 429 of a request with more tokens than may be sent in a minute: it can never pass."""
_CONTENT = re.compile(
    r"content[ _](filter|management|policy)|responsible ?ai|content was (filtered|blocked)|(input|content) flagged|"
    r"flagged as potentially|"
    r"content exists risk|data_?inspection_?failed|prohibited[_ ]content|usage (guidelines|polic)|high risk|"
    r"by (a )?guardrail|unsafe or sensitive content|不安全或敏感",
    re.IGNORECASE,
)
"""Also in the words and codes of xAI, DeepSeek, Alibaba, Moonshot, Bedrock, Mistral and Zhipu."""
_CONTENT_CODES = ("content_filter", "content_policy_violation", "responsible_ai_policy_violation", "moderation_error")
_PASSING = re.compile(r"overloaded|too busy|temporarily unavailable|try again later|unexpected eof", re.IGNORECASE)
"""A fault of the moment, which Z.ai, Ollama before its cloud, and proxies answer with 400."""
_NOT_PARSED = re.compile(
    r"(error parsing|failed to parse|failed to call|could not parse|error in extracting).{0,20}(tool|function)|"
    r"invalid tool call generated|generated output that could not be parsed|failed to parse input at pos|"
    r"output that does not match the expected|tokens remaining in message header|while expecting start token|"
    r"xml syntax error|expected element type <|failed to parse xml",
    re.IGNORECASE,
)
_SAYING = ("message", "detail", "msg", "error_msg", "error_message")
"""Fields of an error that has no other."""
_TELLING = ("title", *_SAYING, "status_msg", "reason", "description", "error", "errors", "messages")
"""The fields of an error that say in words what went wrong."""
_ANSWERING = frozenset(("choices", "delta", "response", "item", "content", "output"))
"""Fields of an answer's pieces."""
_CODES = ("code", "error_code", "type", "error_type", "status", "status_code", "statusCode", "http_status", "http_code")
_LOADING = re.compile(r"\bloading\b", re.IGNORECASE)
_AMOUNT = r"(\d{1,9}(?:\.\d{1,18})?) ?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)(?![a-z])"
_DURATION = re.compile(rf"(?:{_AMOUNT},? ?)+", re.IGNORECASE)
_WAIT = re.compile(rf"(?:again|retry|back|wait)[^0-9]{{0,20}}?({_DURATION.pattern})", re.IGNORECASE)
"""A wait in words, such as `try again in 7m12.5s`."""
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")
LOADING_SECONDS = 60.0
"""How long to wait for a server that is loading its model and does not say how long that takes."""


@dataclass(frozen=True, slots=True)
class ReportedError:
    """What a server says about a failure."""

    text: str = ""
    code: str = ""
    """A name for the failure. Numbers are none."""
    status: int | None = None
    """The HTTP status in an error within a stream."""
    after_s: float | None = None
    """The wait that it asks for, in words or in a field of the body."""

    def is_loading(self, status: int) -> bool:
        """Whether the server says that it loads its model. An error of loading has another status, and stays."""
        return status == 503 and _LOADING.search(self.text) is not None


def error_in(payload: object) -> ReportedError | None:
    """The error in a JSON value; None if it is not an error.

    Knows the forms of Ollama, OpenAI (also within an event `error` or `response.failed`), Anthropic, OpenRouter (also
    within a choice), vLLM, MiniMax (within an answer), and Google, whose body is a list.
    """
    if isinstance(payload, list):
        return next(filter(None, map(error_in, payload)), None)
    if not isinstance(payload, dict):
        return None
    error = payload.get("error")
    if not error and payload.get("type") == "response.failed":
        response = payload.get("response")
        error = (response.get("error") if isinstance(response, dict) else None) or "the response failed"
    if not error and "error" in (payload.get("type"), payload.get("object")):
        error = payload
    if not error and isinstance(groq := payload.get("x_groq"), dict):
        error = groq.get("error")
    if not error and _is_bare_error(payload):
        error = payload
    base = payload.get("base_resp")
    if not error and isinstance(base, dict) and base.get("status_code") not in (None, 0, "0"):
        error = base
    choices = payload.get("choices")
    if not error and isinstance(choices, list):
        parts = [choice for choice in choices if isinstance(choice, dict)]
        parts += [choice["delta"] for choice in parts if isinstance(choice.get("delta"), dict)]
        error = next((part["error"] for part in parts if part.get("error")), None)
    return _reported(error, payload) if error else None


def _is_bare_error(payload: Mapping[str, Any]) -> bool:
    """Whether a piece of JSON says nothing but what went wrong: FastAPI, Bedrock, Cloudflare, older llama.cpp."""
    if not _ANSWERING.isdisjoint(payload):
        return False
    said = any(payload[name] and isinstance(payload[name], str) for name in _SAYING if name in payload)
    return said or bool(payload.get("errors")) or isinstance(payload.get("detail"), list)


def error_in_body(body: bytes, content_type: str) -> ReportedError:
    """What the body of an error response says."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        # a proxy's HTML page says no more than its status
        page = "html" in content_type or body.lstrip().startswith(b"<")
        return ReportedError() if page else ReportedError(body.decode("utf-8", "replace"))
    reported = error_in(payload)
    if reported is None and isinstance(payload, Mapping):
        reported = _reported(payload, payload)
    return reported or ReportedError()


def _reported(error: object, payload: Mapping[str, Any]) -> ReportedError:
    beside = payload.get("error_description")  # as OAuth has it
    text = "; ".join(dict.fromkeys(filter(None, (*_sentences(error), *_sentences(beside)))))
    code, status, after_s = "", payload.get("status"), None
    if isinstance(error, Mapping):
        codes = [error.get(name) for name in _CODES]
        named = [value.lower() for value in codes if isinstance(value, str)]
        code = next((value for value in named if value not in ("", "none", "error") and not value.isdigit()), "")
        statuses = [status, *codes, *(int(value) for value in named if value.isdigit() and len(value) == 3)]
        statuses += [_STATUSES[value] for value in named if value in _STATUSES]
        status = next((value for value in statuses if _is_status(value)), None)
        after_s = _wait_in(error)
    if after_s is None:
        after_s = _wait_in(payload)
    if after_s is None and (wait := _WAIT.search(text)):
        after_s = _duration(wait[1])
    return ReportedError(text, code, status if _is_status(status) else None, after_s)


def _sentences(error: object) -> Iterator[str]:
    """All sentences of an error, wherever the server puts them."""
    if isinstance(error, str):
        yield error.strip()
    elif isinstance(error, list):
        for part in error[:20]:
            yield from _sentences(part)
    elif isinstance(error, Mapping):
        said = [
            sentence for name in (*_TELLING, "details", "fieldViolations") for sentence in _sentences(error.get(name))
        ]
        where = error.get("loc") or error.get("param")
        place = ".".join(map(str, where)) if isinstance(where, list) else ""
        if isinstance(where, str) and " " in where:  # a sentence of MiMo's
            said.append(where)
        if place and said:
            said[0] = f"{place}: {said[0]}"
        yield from said
        if isinstance(size := error.get("n_ctx"), int):
            yield f"the context size is {size} tokens"  # llama.cpp
        metadata = error.get("metadata")
        raw = metadata.get("raw") or metadata.get("reasons") if isinstance(metadata, Mapping) else None
        if isinstance(raw, str) and (inner := _parsed(raw)) is not None:
            yield from _sentences(inner.get("error") or inner)
        elif raw:
            yield from _sentences(raw)


def _parsed(raw: str) -> Mapping[str, Any] | None:
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, Mapping) else None


def _wait_in(error: Mapping[str, Any]) -> float | None:
    """The wait in a field of Google's (`retryDelay`), Hugging Face's (`estimated_time`) or OpenRouter's errors."""
    details = error.get("details")
    for part in [error, *(details if isinstance(details, list) else ())]:
        if not isinstance(part, Mapping):
            continue
        delay = part.get("retryDelay")
        if isinstance(delay, str) and (found := _DELAY.fullmatch(delay)):
            return float(found[1])
        for name in ("estimated_time", "retry_after", "retry_after_seconds", "resets_in_seconds"):
            value = part.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**20:
                return float(value)
    return None


def _duration(words: str) -> float:
    return sum(_seconds(*amount) for amount in re.findall(_AMOUNT, words, re.IGNORECASE))


def _seconds(number: str, unit: str) -> float:
    unit = unit.lower()
    if unit.startswith(("ms", "mil")):
        return float(number) / 1000
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit[0]]


def presentable(text: str) -> str:
    """A server's text for use in a message: one line, without control characters, truncated."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text[:4096]).split())
    return line if len(line) <= MAX_QUOTED_CHARACTERS else line[: MAX_QUOTED_CHARACTERS - 1] + "…"


def error_class(status: int, reported: ReportedError) -> type[EngineError]:
    """The class of error for a response with this status."""
    if status in _NOT_PARSED_STATUSES and _NOT_PARSED.search(reported.text):
        return CallNotParsed
    # Below 300: in a stream that had begun.
    if (status < 300 or status in _NOT_PARSED_STATUSES) and reported.code == "tool_use_failed":
        return CallNotParsed
    said = f"{reported.code} {reported.text}"
    if status == 413 or (status in _TOO_LONG_STATUSES and _TOO_LONG.search(said)):
        return ContextExceeded
    if status == 429 and _LARGER_THAN_LIMIT in said.lower():
        return ContextExceeded
    if status in (400, 403, 422) and (reported.code in _CONTENT_CODES or _CONTENT.search(said)):
        return ContentRefused
    if status == 429:
        return EngineRateLimited
    if status >= 500 or status in _PASSING_4XX or (status in (400, 403) and _PASSING.search(said)):
        return EngineUnavailable
    if status in (400, 404):
        # 404 alone may also be a wrong path; OpenRouter sends 400
        text = reported.text.lower()
        if reported.code == "model_not_found" or "not a valid model" in text or (status == 404 and "model" in text):
            return ModelNotFound
    return EngineRejected if status >= 300 else EngineProtocolError


def class_within(reported: ReportedError) -> type[EngineError]:
    """The class of error for an error in the stream of an answer that began with status 200."""
    kind = error_class(reported.status or 400, reported)
    if reported.status is None:  # only the words may tell that it is more than a fault of the moment
        return kind if issubclass(kind, ContextExceeded | ContentRefused | CallNotParsed) else EngineBrokeOff
    return EngineBrokeOff if kind is EngineUnavailable and reported.status >= 500 else kind


def is_passing(status: int, reported: ReportedError, should_retry: str = "") -> bool:
    """Whether a retry can help. `should_retry` is the header x-should-retry, by which OpenAI and Anthropic decide."""
    kind = error_class(status, reported)
    if kind is CallNotParsed:  # the model may get it right the next time
        return True
    if kind in (EngineUnavailable, EngineRateLimited):
        spent = reported.code in _SPENT_CODES or _SPENT.search(reported.text)
        return not spent and should_retry != "false"
    return kind is EngineRejected and should_retry == "true"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait according to the headers retry-after-ms and retry-after (RFC 9110, 10.2.3).

    Some servers tell a duration, such as `2m59.56s`.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    words = headers.get("retry-after", "")
    if _DURATION.fullmatch(words.strip()):
        return _duration(words)
    try:
        when = parsedate_to_datetime(words)
    except (ValueError, OverflowError, TypeError, IndexError):  # what email.utils makes of absurd years and zones
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _is_status(value: object) -> bool:
    return isinstance(value, int) and 400 <= value < 600
