"""What a model server's refusal means: the error that it becomes, and whether asking again can help."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from gateway_svc.errors import (
    EngineError,
    EngineProtocolError,
    EngineRateLimited,
    EngineRejected,
    EngineUnavailable,
    ModelNotFound,
)

MAX_TOLD_CHARACTERS = 300
_PASSING_4XX = (408, 409, 429)
"""Request timeout, conflict, too many requests: what OpenAI's own client tries again."""
_STATUSES = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
}
"""The HTTP status that a response would have had for a code which OpenAI tells in the middle of a stream."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a server says about its failure."""

    text: str = ""
    code: str = ""
    status: int | None = None
    """The HTTP status that an error within a stream gives."""


def told_by(payload: Mapping[str, Any]) -> Told | None:
    """The error in a piece of JSON, in the shapes of Ollama, OpenAI, OpenRouter and vLLM; None where it is no error.

    OpenAI's responses tell it in an event, `error` or `response.failed`.
    """
    error = payload.get("error")
    if error is None and payload.get("type") == "error":
        error = payload
    if payload.get("type") == "response.failed":
        response = payload.get("response")
        error = (response.get("error") if isinstance(response, Mapping) else None) or "the response failed"
    if error is None and payload.get("object") == "error":
        error = payload
    if isinstance(error, Mapping):
        code, text = error.get("code"), error.get("message")
    elif error:
        code, text = None, error
    else:
        return None
    named = _STATUSES.get(code) if isinstance(code, str) else None
    status = next((value for value in (payload.get("status"), code, named) if _is_status(value)), None)
    return Told(text if isinstance(text, str) else "", code if isinstance(code, str) else "", status)


def told_by_body(body: bytes, content_type: str) -> Told:
    """What the body of an error response says."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        # a proxy's page says nothing in its markup that its status does not
        return Told() if "html" in content_type else Told(body.decode("utf-8", "replace"))
    if not isinstance(payload, Mapping):
        return Told()
    said = told_by(payload)
    if said is not None:
        return said
    text = payload.get("detail") or payload.get("message")
    return Told(text if isinstance(text, str) else "")


def presentable(text: str) -> str:
    """A server's words for a message: one line, without control characters, cut."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text[:4096]).split())
    return line if len(line) <= MAX_TOLD_CHARACTERS else line[:MAX_TOLD_CHARACTERS] + "…"


def kind_of(status: int, told: Told) -> type[EngineError]:
    """The error that a response with this status is."""
    if status == 429:
        return EngineRateLimited
    if status >= 500 or status in _PASSING_4XX:
        return EngineUnavailable
    if status in (400, 404):
        # 404 alone may as well be a wrong path; OpenRouter says 400
        text = told.text.lower()
        if told.code == "model_not_found" or "not a valid model" in text or (status == 404 and "model" in text):
            return ModelNotFound
    return EngineRejected if status >= 300 else EngineProtocolError


def may_pass(status: int, told: Told) -> bool:
    """Whether asking again can help."""
    return (status >= 500 or status in _PASSING_4XX) and told.code != "insufficient_quota"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks to wait, by its headers retry-after-ms and retry-after (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _is_status(value: object) -> bool:
    return isinstance(value, int) and 400 <= value < 600
