"""Gemini's API: POST /v1beta/models/MODEL:generateContent and :streamGenerateContent, server-sent events.

Shapes and errors are those of https://ai.google.dev/api/generate-content.
"""

import secrets
from typing import Any

from demo.script import Script, Step
from demo.script_formats import Counts, Rejected, encode, tokens_of

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUS = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
_ROLES = {"model": "assistant", "user": "user", "function": "tool"}
Part = dict[str, Any]


class GeminiFormat:
    """Gemini's generateContent (the Format protocol). The model and whether to stream are in the path."""

    stream_type = "text/event-stream"

    def check(self, request: dict[str, Any], script: Script, authorization: str) -> None:
        """Raises Rejected if Gemini would refuse the request."""
        if script.models and request["model"] not in script.models:
            raise Rejected(404, f"models/{request['model']} is not found for API version v1beta")
        contents = request.get("contents")
        if not contents:
            raise Rejected(400, "* GenerateContentRequest.contents: contents is not specified")
        called = 0
        for content in contents:
            parts = content["parts"]
            answered = sum("functionResponse" in part for part in parts)
            if called and answered != called:
                text = "the number of function response parts is equal to the number of function call parts"
                raise Rejected(400, f"Please ensure that {text} of the function call turn.")
            called = sum("functionCall" in part for part in parts)

    def roles(self, request: dict[str, Any]) -> list[str]:
        """One for each content, `tool` for one that brings results."""
        found = []
        for content in request["contents"]:
            results = any("functionResponse" in part for part in content["parts"])
            found.append("tool" if results else _ROLES[content.get("role", "user")])
        return found

    def check_size(self, tokens: int, context_tokens: int | None) -> None:
        """Raises Rejected if Gemini would refuse a request of this many tokens."""
        if context_tokens is not None and tokens > context_tokens:
            text = f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({context_tokens})."
            raise Rejected(400, text)

    def streams(self, request: dict[str, Any]) -> bool:
        """As the path says."""
        return bool(request["stream"])

    def chunks(self, request: dict[str, Any], step: Step, counts: Counts) -> list[bytes]:
        """An event for each token, one for each call, and one with the reason of the end and the usage."""
        parts: list[Part] = [{"text": token, "thought": True} for token in tokens_of(step.thinking)]
        parts += [{"text": token} for token in tokens_of(step.text)]
        parts += _calls(step)
        head = {"modelVersion": request["model"], "responseId": secrets.token_hex(8)}
        events = [head | {"candidates": [_candidate([part])]} for part in parts]
        last = head | {"candidates": [_candidate([{"text": ""}], None if "finish" in step.omit else _finish(step))]}
        events.append(last | ({} if "usage" in step.omit else {"usageMetadata": _usage(counts)}))
        return [b"data: " + encode(event) + b"\r\n\r\n" for event in events]

    def whole(self, request: dict[str, Any], step: Step, counts: Counts) -> bytes:
        """The answer without streaming."""
        thought: list[Part] = [{"text": step.thinking, "thought": True}] if step.thinking else []
        parts = [*thought, *([{"text": step.text}] if step.text else []), *_calls(step)]
        answer: Part = {"candidates": [_candidate(parts, _finish(step))], "modelVersion": request["model"]}
        return encode(answer | ({} if "usage" in step.omit else {"usageMetadata": _usage(counts)}))

    def error(self, rejected: Rejected) -> bytes:
        """Google's error body."""
        return encode(_error(rejected.status, rejected.message))

    def error_chunk(self, message: str, status: int | None) -> bytes:
        """The event for an error in the middle of a stream."""
        return b"data: " + encode(_error(status or 500, message)) + b"\r\n\r\n"


def _calls(step: Step) -> list[Part]:
    calls = []
    for call in step.tool_calls:
        named = {"id": call.id or f"call_{secrets.token_hex(8)}"} if call.id != "" else {}
        calls.append({"functionCall": {"name": call.name, "args": call.arguments, **named}})
    return calls


def _candidate(parts: list[Part], finish: str | None = None) -> Part:
    candidate: Part = {"content": {"role": "model", "parts": parts}, "index": 0}
    return candidate | ({"finishReason": finish} if finish else {})


def _finish(step: Step) -> str:
    return _FINISH.get(step.finish or "stop", step.finish or "STOP")


def _usage(counts: Counts) -> Part:
    return {
        "promptTokenCount": counts.input,
        "cachedContentTokenCount": counts.cached,
        "candidatesTokenCount": counts.output - counts.reasoning,
        "thoughtsTokenCount": counts.reasoning,
        "totalTokenCount": counts.input + counts.output,
    }


def _error(status: int, message: str) -> Part:
    kind = _STATUS.get(status, "UNAVAILABLE" if status == 503 else "INTERNAL")
    return {"error": {"code": status, "message": message, "status": kind}}
