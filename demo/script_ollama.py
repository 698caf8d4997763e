"""Ollama's wire format: POST /api/chat, NDJSON. Shapes and errors are those of api/types.go and server/routes.go.

It is stricter in one thing: the real server takes calls without results, and results without calls.
"""

import secrets
import string
from datetime import UTC, datetime
from typing import Any

from demo.script import Call, Script, Step
from demo.script_formats import Counts, Rejected, check_pairs, encode, messages_of, roles_of, tokens_of

_ID_CHARACTERS = string.ascii_lowercase + string.digits
_GO_TYPES = {str: "string", list: "array", dict: "object", int: "number", float: "number", bool: "bool"}


class OllamaFormat:
    """Ollama's API (the Format protocol)."""

    stream_type = "application/x-ndjson"

    def check(self, request: dict[str, Any], script: Script, authorization: str) -> None:
        """Raises Rejected if Ollama would refuse the request."""
        model = request.get("model")
        if not model:
            raise Rejected(400, "model is required")
        if script.models and model not in script.models:
            raise Rejected(404, f"model '{model}' not found")
        if request.get("tools") and "tools" not in script.capabilities:
            raise Rejected(400, f'"{model}" does not support tools')
        if request.get("think") and "thinking" not in script.capabilities:
            raise Rejected(400, f'"{model}" does not support thinking')
        messages = messages_of(request)
        for message in messages:
            self._check_message(message)
        if wrong := check_pairs(messages):
            raise Rejected(400, wrong)

    def _check_message(self, message: dict[str, Any]) -> None:
        for field in ("content", "thinking", "tool_name", "tool_call_id"):
            if not isinstance(message.get(field), str | None):
                raise _mismatch(message[field], f"messages.{field}", "string")
        if message.get("role") not in ("system", "user", "assistant", "tool"):
            raise Rejected(400, 'invalid role: must be one of ["system", "user", "assistant", "tool"]')
        for call in message.get("tool_calls") or ():
            arguments = call["function"].get("arguments")
            if not isinstance(arguments, dict | None):
                raise _mismatch(arguments, "messages.tool_calls.function.arguments", "api.ToolCallFunctionArguments")

    def roles(self, request: dict[str, Any]) -> list[str]:
        """The roles of the messages."""
        return roles_of(messages_of(request))

    def check_size(self, tokens: int, context_tokens: int | None) -> None:
        """Ollama refuses no request for its size."""

    def streams(self, request: dict[str, Any]) -> bool:
        """Ollama streams unless told not to."""
        return request.get("stream", True) is not False

    def chunks(self, request: dict[str, Any], step: Step, counts: Counts) -> list[bytes]:
        """A line for each token, one for each tool call, and a last one with the counts."""
        head = {"model": request["model"], "created_at": _now()}
        messages: list[dict[str, Any]] = [{"content": "", "thinking": token} for token in tokens_of(step.thinking)]
        messages += [{"content": token} for token in tokens_of(step.text)]
        messages += [{"content": "", "tool_calls": [_call(call, index)]} for index, call in enumerate(step.tool_calls)]
        lines = [
            encode(head | {"message": {"role": "assistant", **message}, "done": False}) + b"\n" for message in messages
        ]
        if "done" not in step.omit:
            last = head | {"message": {"role": "assistant", "content": ""}} | _ending(step, counts)
            lines.append(encode(last) + b"\n")
        return lines

    def whole(self, request: dict[str, Any], step: Step, counts: Counts) -> bytes:
        """The answer without streaming."""
        message: dict[str, Any] = {"role": "assistant", "content": step.text}
        if step.thinking:
            message["thinking"] = step.thinking
        if step.tool_calls:
            message["tool_calls"] = [_call(call, index) for index, call in enumerate(step.tool_calls)]
        return encode({"model": request["model"], "created_at": _now(), "message": message} | _ending(step, counts))

    def error(self, rejected: Rejected) -> bytes:
        """Ollama's error body."""
        return encode({"error": rejected.message})

    def error_chunk(self, message: str, status: int | None) -> bytes:
        """Ollama's error line, in a stream whose status stays 200."""
        return encode({"error": message} if status is None else {"error": message, "status": status}) + b"\n"


def _mismatch(value: object, field: str, wanted: str) -> Rejected:
    found = _GO_TYPES.get(type(value), "value")
    return Rejected(400, f"json: cannot unmarshal {found} into Go struct field ChatRequest.{field} of type {wanted}")


def _call(call: Call, index: int) -> dict[str, Any]:
    function = {"index": index, "name": call.name, "arguments": call.arguments}
    made_up = "call_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(8)) if call.id is None else call.id
    return {"id": made_up, "function": function} if made_up else {"function": function}


def _ending(step: Step, counts: Counts) -> dict[str, Any]:
    ending: dict[str, Any] = {"done": True, "total_duration": 2_000_000, "load_duration": 1_000_000}
    if "finish" not in step.omit:
        ending["done_reason"] = step.finish or "stop"
    if "usage" not in step.omit:
        # a count of 0 is left out, as Go's omitempty does
        measured = {"prompt_eval_count": counts.input, "eval_count": counts.output}
        ending |= {name: value for name, value in measured.items() if value}
    return ending


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
