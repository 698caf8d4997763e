"""OpenAI's wire format: POST /v1/chat/completions, server-sent events. Shapes are those of its API reference.

Where servers that speak the format differ in what they take, this one is as strict as the strictest: like OpenAI it
wants every tool call answered, and like llama.cpp it wants the arguments in the history to be JSON.
"""

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from demo.script import Call, Script, Step
from demo.script_formats import Counts, Rejected, encode, messages_of, roles_of, tokens_of


class OpenAIFormat:
    """OpenAI's chat completions (the Format protocol)."""

    stream_type = "text/event-stream; charset=utf-8"

    def check(self, request: dict[str, Any], script: Script, authorization: str) -> None:
        """Raises Rejected if OpenAI would refuse the request."""
        if script.api_key is not None and authorization != f"Bearer {script.api_key}":
            raise Rejected(
                401, f"Incorrect API key provided: {authorization.removeprefix('Bearer ')}.", code="invalid_api_key"
            )
        model = request.get("model")
        if not model:
            raise Rejected(400, "you must provide a model parameter")
        if script.models and model not in script.models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise Rejected(404, message, code="model_not_found")
        messages = messages_of(request)
        if not messages:
            raise _invalid("messages", "[] is too short - 'messages'")
        if request.get("tools") == []:
            raise _invalid("tools", "[] is too short - 'tools'")
        self._check_messages(messages)

    def _check_messages(self, messages: Sequence[dict[str, Any]]) -> None:
        unanswered: list[str] = []
        for at, message in enumerate(messages):
            role = message.get("role")
            if role == "tool":
                if message.get("tool_call_id") not in unanswered:
                    text = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                    raise _invalid(f"messages.[{at}].role", f"Invalid parameter: {text}")
                unanswered.remove(message["tool_call_id"])
            elif unanswered:
                raise _unanswered(at, unanswered)
            if message.get("content") is None and role != "assistant":
                raise _invalid(f"messages.[{at}].content", "Invalid value for 'content': expected a string, got null.")
            unanswered += self._check_calls(at, message.get("tool_calls") or ())
        if unanswered:
            raise _unanswered(len(messages), unanswered)

    def _check_calls(self, at: int, calls: Sequence[dict[str, Any]]) -> list[str]:
        ids: list[str] = []
        for number, call in enumerate(calls):
            place = f"messages[{at}].tool_calls[{number}]"
            if call["id"] in ids:
                raise _invalid("messages", f"Duplicate value for 'tool_call_id' of '{call['id']}' in {place}.")
            ids.append(call["id"])
            arguments = call["function"].get("arguments")
            if not isinstance(arguments, str):
                found = "an object" if isinstance(arguments, dict) else "something else"
                text = f"Invalid type for '{place}.function.arguments': expected a string, but got {found} instead."
                raise Rejected(400, text, code="invalid_type", param=f"{place}.function.arguments")
            try:
                json.loads(arguments)
            except ValueError as error:
                raise Rejected(500, f"Failed to parse tool call arguments as JSON: {error}") from error
        return ids

    def roles(self, request: dict[str, Any]) -> list[str]:
        """The roles of the messages."""
        return roles_of(messages_of(request))

    def check_size(self, tokens: int, context_tokens: int | None) -> None:
        """Raises Rejected if OpenAI would refuse a request of this many tokens."""
        if context_tokens is not None and tokens > context_tokens:
            text = (
                f"This model's maximum context length is {context_tokens} tokens. However, your messages resulted in "
            )
            raise Rejected(400, f"{text}{tokens} tokens.", code="context_length_exceeded", param="messages")

    def streams(self, request: dict[str, Any]) -> bool:
        """OpenAI streams only if asked to."""
        return request.get("stream") is True

    def chunks(self, request: dict[str, Any], step: Step, counts: Counts) -> list[bytes]:
        """An event for each token or fragment, one with the finish reason, one with the usage if requested, the end."""
        wants_usage = bool((request.get("stream_options") or {}).get("include_usage")) and "usage" not in step.omit
        head = _head(request, "chat.completion.chunk") | ({"usage": None} if wants_usage else {})
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": token} for token in tokens_of(step.thinking)]
        deltas += [{"content": token} for token in tokens_of(step.text)]
        for index, call in enumerate(step.tool_calls):
            deltas += _fragments(call, index, step.argument_chars)
        events = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        if "finish" not in step.omit:
            events.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(step)}]})
        if wants_usage:
            events.append(head | {"choices": [], "usage": _usage(counts)})
        lines = [b"data: " + encode(event) + b"\n\n" for event in events]
        return lines if "done" in step.omit else [*lines, b"data: [DONE]\n\n"]

    def whole(self, request: dict[str, Any], step: Step, counts: Counts) -> bytes:
        """The answer without streaming."""
        message: dict[str, Any] = {"role": "assistant", "content": step.text or None}
        if step.thinking:
            message["reasoning_content"] = step.thinking
        if step.tool_calls:
            message["tool_calls"] = [
                {"id": _id(call), "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
                for call in step.tool_calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": _finish(step)}
        usage = {} if "usage" in step.omit else {"usage": _usage(counts)}
        return encode(_head(request, "chat.completion") | {"choices": [choice]} | usage)

    def error(self, rejected: Rejected) -> bytes:
        """OpenAI's error body."""
        kind = "server_error" if rejected.status >= 500 else "invalid_request_error"
        error = {"message": rejected.message, "type": kind, "param": rejected.param, "code": rejected.code}
        return encode({"error": error})

    def error_chunk(self, message: str, status: int | None) -> bytes:
        """The event that compatible servers send for an error in the middle of a stream."""
        return (
            b"data: "
            + encode({"error": {"message": message, "type": "server_error", "param": None, "code": status}})
            + b"\n\n"
        )


def _invalid(param: str, message: str) -> Rejected:
    return Rejected(400, message, param=param)


def _unanswered(at: int, ids: Sequence[str]) -> Rejected:
    rule = "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
    missing = f"The following tool_call_ids did not have response messages: {', '.join(ids)}"
    return Rejected(400, f"{rule} {missing}", param=f"messages.[{at}].role")


def _head(request: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
    }


def _id(call: Call) -> str:
    return f"call_{secrets.token_hex(12)}" if call.id is None else call.id


def _arguments(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)


def _fragments(call: Call, index: int, size: int | None) -> list[dict[str, Any]]:
    arguments, made_up = _arguments(call), _id(call)
    first: dict[str, Any] = {"index": index, "type": "function", "function": {"name": call.name, "arguments": ""}}
    if made_up:
        first["id"] = made_up
    parts = (
        tokens_of(arguments) if size is None else [arguments[at : at + size] for at in range(0, len(arguments), size)]
    )
    return [{"tool_calls": [first]}] + [
        {"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in parts
    ]


def _finish(step: Step) -> str:
    return step.finish or ("tool_calls" if step.tool_calls else "stop")


def _usage(counts: Counts) -> dict[str, Any]:
    return {
        "prompt_tokens": counts.input,
        "completion_tokens": counts.output,
        "total_tokens": counts.input + counts.output,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }
