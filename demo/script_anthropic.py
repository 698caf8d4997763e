"""Anthropic's Messages API: POST /v1/messages, server-sent events. Shapes and errors are those of its API reference.

A thought is signed for its model and its words, and checked when it comes back. So are the pairs of calls and results,
which have to follow one another at once.
"""

import json
import re
import secrets
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from demo.script import Script, Step
from demo.script_formats import Counts, Rejected, encode, messages_of, tokens_of

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
Block = dict[str, Any]


class AnthropicFormat:
    """Anthropic's Messages API (the Format protocol)."""

    stream_type = "text/event-stream; charset=utf-8"

    def check(self, request: dict[str, Any], script: Script, authorization: str) -> None:
        """Raises Rejected if Anthropic would refuse the request."""
        if script.api_key is not None and authorization != f"Bearer {script.api_key}":
            raise Rejected(401, "invalid x-api-key")
        for name in ("model", "max_tokens", "messages"):
            if not request.get(name):
                raise Rejected(400, f"{name}: Field required")
        if script.models and request["model"] not in script.models:
            raise Rejected(404, f"model: {request['model']}")
        for at, tool in enumerate(request.get("tools") or ()):
            if not _NAME.fullmatch(tool["name"]) or tool["input_schema"].get("type") != "object":
                raise Rejected(400, f"tools.{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        self._check_messages(messages_of(request), request["model"])

    def _check_messages(self, messages: Any, model: str) -> None:
        unanswered: list[str] = []
        for at, message in enumerate(messages):
            if message.get("role") not in ("user", "assistant"):
                raise Rejected(400, f"messages.{at}.role: Input should be 'user' or 'assistant'")
            blocks = _blocks(message)
            if not blocks:
                raise Rejected(400, f"messages.{at}: all messages must have non-empty content")
            results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            if sorted(results) != sorted(unanswered):
                text = f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                raise Rejected(400, text + ", ".join(unanswered or results))
            calls = [block for block in blocks if block["type"] == "tool_use"]
            unanswered = [call["id"] for call in calls]
            for number, block in enumerate(blocks):
                _check_block(block, f"messages.{at}.content.{number}", model)
        if unanswered:
            raise Rejected(400, f"messages: `tool_use` ids were found without `tool_result` blocks: {unanswered}")

    def roles(self, request: dict[str, Any]) -> list[str]:
        """One for each message, `tool` for one that brings results."""
        kinds = [(message["role"], {block["type"] for block in _blocks(message)}) for message in messages_of(request)]
        return [role for name, found in kinds for role in (["tool"] if found == {"tool_result"} else [name])]

    def check_size(self, tokens: int, context_tokens: int | None) -> None:
        """Raises Rejected if Anthropic would refuse a request of this many tokens."""
        if context_tokens is not None and tokens > context_tokens:
            raise Rejected(400, f"prompt is too long: {tokens} tokens > {context_tokens} maximum")

    def streams(self, request: dict[str, Any]) -> bool:
        """Anthropic streams only when it is asked to."""
        return request.get("stream") is True

    def chunks(self, request: dict[str, Any], step: Step, counts: Counts) -> list[bytes]:
        """The events of a message: its start, each block in pieces, its end with the usage."""
        usage = {} if "usage" in step.omit else _usage(counts)
        begun = _message(request, [], None, usage | ({"output_tokens": 1} if usage else {}))
        events: list[Block] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
        for index, block in enumerate(_content(request["model"], step)):
            events += [{"index": index, **event} for event in _block_events(block, step)]
        if "finish" not in step.omit:
            delta = {"stop_reason": _stop_reason(step), "stop_sequence": None}
            events.append({"type": "message_delta", "delta": delta, "usage": usage})
        if "done" not in step.omit:
            events.append({"type": "message_stop"})
        return [_event(event) for event in events]

    def whole(self, request: dict[str, Any], step: Step, counts: Counts) -> bytes:
        """The message without streaming."""
        usage = {} if "usage" in step.omit else _usage(counts)
        return encode(_message(request, list(_content(request["model"], step)), _stop_reason(step), usage))

    def error(self, rejected: Rejected) -> bytes:
        """Anthropic's error body."""
        return encode(_error(rejected.status, rejected.message))

    def error_chunk(self, message: str, status: int | None) -> bytes:
        """The event for an error in the middle of a stream."""
        return _event(_error(status or 500, message))


def _blocks(message: Any) -> list[Block]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def _check_block(block: Block, place: str, model: str) -> None:
    match block["type"]:
        case "text" if not block["text"].strip():
            raise Rejected(400, f"{place}: text content blocks must contain non-whitespace text")
        case "tool_use" if not (_ID.fullmatch(block["id"]) and _NAME.fullmatch(block["name"])):
            raise Rejected(400, f"{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        case "tool_use" if not isinstance(block["input"], dict):
            raise Rejected(400, f"{place}.tool_use.input: Input should be a valid dictionary")
        case "thinking" if block.get("signature") != _signature(model, block["thinking"]):
            raise Rejected(400, f"{place}: Invalid `signature` in `thinking` block")


def _signature(model: str, thought: str) -> str:
    return f"Erg{sha256(f'{model} {thought}'.encode()).hexdigest()[:24]}"


def _content(model: str, step: Step) -> Iterator[Block]:
    if step.thinking:
        yield {"type": "thinking", "thinking": step.thinking, "signature": _signature(model, step.thinking)}
    if step.text:
        yield {"type": "text", "text": step.text}
    for call in step.tool_calls:
        call_id = f"toolu_{secrets.token_hex(12)}" if not call.id else call.id
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": call.arguments}


def _block_events(block: Block, step: Step) -> Iterator[Block]:
    emptied = {"thinking": "", "signature": "", "text": "", "input": {}}
    started = block | {name: value for name, value in emptied.items() if name in block}
    yield {"type": "content_block_start", "content_block": started}
    match block["type"]:
        case "thinking":
            for piece in tokens_of(block["thinking"]):
                yield {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": piece}}
            signed = {"type": "signature_delta", "signature": block["signature"]}
            yield {"type": "content_block_delta", "delta": signed}
        case "text":
            for piece in tokens_of(block["text"]):
                yield {"type": "content_block_delta", "delta": {"type": "text_delta", "text": piece}}
        case "tool_use":
            for piece in _pieces(block["input"], step.argument_chars):
                yield {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": piece}}
    yield {"type": "content_block_stop"}


def _pieces(arguments: Any, size: int | None) -> list[str]:
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return tokens_of(written) if size is None else [written[at : at + size] for at in range(0, len(written), size)]


def _stop_reason(step: Step) -> str:
    if step.finish:
        return _STOP_REASONS.get(step.finish, step.finish)
    return "tool_use" if step.tool_calls else "end_turn"


def _message(request: dict[str, Any], content: list[Block], stop_reason: str | None, usage: Block) -> Block:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _usage(counts: Counts) -> Block:
    return {
        "input_tokens": counts.input - counts.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.output,
        "output_tokens_details": {"thinking_tokens": counts.reasoning},
    }


def _error(status: int, message: str) -> Block:
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{secrets.token_hex(8)}"}


def _event(event: Block) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + encode(event) + b"\n\n"
