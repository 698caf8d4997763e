"""OpenAI's Responses API: POST /v1/responses, server-sent events. Shapes and errors are those of its API reference.

Nothing is kept, as with `store: false`: what a model has thought goes out encrypted, and has to come back with its id,
ahead of the items that it led to, to the same model. demo.responses_input checks that, and all else of a request.
"""

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from demo.responses_input import InputCheck, encrypted, turns_of
from demo.script import Call, Script, Step
from demo.script_formats import Counts, Rejected, encode, tokens_of

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
Item = dict[str, Any]


class ResponsesFormat:
    """OpenAI's Responses API (the Format protocol)."""

    stream_type = "text/event-stream; charset=utf-8"

    def check(self, request: dict[str, Any], script: Script, authorization: str) -> None:
        """Raises Rejected if OpenAI would refuse the request."""
        if script.api_key is not None and authorization != f"Bearer {script.api_key}":
            raise Rejected(401, "Incorrect API key provided.", code="invalid_api_key")
        model = request.get("model")
        if not model:
            raise Rejected(400, "Missing required parameter: 'model'.", param="model")
        if script.models and model not in script.models:
            raise Rejected(404, f"The model `{model}` does not exist.", code="model_not_found", param="model")
        if "thinking" not in script.capabilities and _wants_encrypted(request):
            raise Rejected(400, "Encrypted content is not supported with this model.", param="include")
        InputCheck(request).run()

    def roles(self, request: dict[str, Any]) -> list[str]:
        """The roles of the messages: one `assistant` for each answer, however many items it has."""
        return turns_of(request)

    def check_size(self, tokens: int, context_tokens: int | None) -> None:
        """Raises Rejected if OpenAI would refuse a request of this many tokens."""
        if context_tokens is not None and tokens > context_tokens:
            text = "Your input exceeds the context window of this model. Please adjust your input and try again."
            raise Rejected(400, text, code="context_length_exceeded", param="input")

    def streams(self, request: dict[str, Any]) -> bool:
        """OpenAI streams only if asked to."""
        return request.get("stream") is True

    def chunks(self, request: dict[str, Any], step: Step, counts: Counts) -> list[bytes]:
        """The events of a response: its start, each item in pieces, and its end with the usage."""
        response = _response(request, step, counts)
        output, usage, details = response["output"], response.pop("usage", None), response.pop("incomplete_details")
        begun = response | {"status": "in_progress", "output": []}
        events: list[Item] = [{"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")]
        for index, item in enumerate(output):
            events += ({"output_index": index, **event} for event in _item_events(item, step))
        ended = response | {"incomplete_details": details} | ({"usage": usage} if usage else {})
        if not step.omit & {"finish", "done"}:
            events.append({"type": f"response.{response['status']}", "response": ended})
        return [_event(event | {"sequence_number": number}) for number, event in enumerate(events)]

    def whole(self, request: dict[str, Any], step: Step, counts: Counts) -> bytes:
        """The response without streaming."""
        return encode(_response(request, step, counts))

    def error(self, rejected: Rejected) -> bytes:
        """OpenAI's error body."""
        kind = "server_error" if rejected.status >= 500 else "invalid_request_error"
        error = {"message": rejected.message, "type": kind, "param": rejected.param, "code": rejected.code}
        return encode({"error": error})

    def error_chunk(self, message: str, status: int | None) -> bytes:
        """The event for an error in the middle of a stream."""
        code = {429: "rate_limit_exceeded", 400: "invalid_prompt"}.get(status or 500, "server_error")
        return _event({"type": "error", "code": code, "message": message, "param": None, "sequence_number": 99})


def _wants_encrypted(request: dict[str, Any]) -> bool:
    return "reasoning.encrypted_content" in (request.get("include") or ())


def _event(event: Item) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + encode(event) + b"\n\n"


def _response(request: dict[str, Any], step: Step, counts: Counts) -> Item:
    incomplete = _INCOMPLETE.get(step.finish or "")
    response: Item = {
        "id": f"resp_{secrets.token_hex(12)}",
        "object": "response",
        "created_at": int(time.time()),
        "model": request["model"],
        "status": "incomplete" if incomplete else "completed",
        "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "output": list(_output(request, step)),
    }
    if "usage" not in step.omit:
        response["usage"] = {
            "input_tokens": counts.input,
            "input_tokens_details": {"cached_tokens": counts.cached},
            "output_tokens": counts.output,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.input + counts.output,
        }
    return response


def _output(request: dict[str, Any], step: Step) -> Iterator[Item]:
    # the ids of items say which thought they need: see demo.responses_input
    thought = secrets.token_hex(8) if step.thinking and _wants_encrypted(request) else ""
    if step.thinking:
        item_id = f"rs_{thought or secrets.token_hex(8)}"
        summary = [{"type": "summary_text", "text": step.thinking}]
        hidden = {"encrypted_content": encrypted(item_id, request["model"])} if thought else {}
        yield {"type": "reasoning", "id": item_id, "summary": summary, **hidden}
    if step.text:
        refused = step.finish == "refusal"
        part: Item = {"type": "refusal", "refusal": step.text}
        if not refused:
            part = {"type": "output_text", "text": step.text, "annotations": []}
        head = {"type": "message", "id": f"msg_{thought}{secrets.token_hex(8)}", "role": "assistant"}
        yield head | {"status": "completed", "content": [part]}
    for call in step.tool_calls:
        head = {"type": "function_call", "id": f"fc_{thought}{secrets.token_hex(8)}", "status": "completed"}
        yield head | {"call_id": _call_id(call), "name": call.name, "arguments": _arguments(call)}


def _item_events(item: Item, step: Step) -> Iterator[Item]:
    added = item | {name: type(item[name])() for name in ("content", "arguments", "summary") if name in item}
    yield {"type": "response.output_item.added", "item": added | {"status": "in_progress"}}
    match item["type"]:
        case "reasoning":
            yield from _pieces("reasoning_summary_text", tokens_of(step.thinking), {"summary_index": 0})
        case "message":
            kind = item["content"][0]["type"]
            part = {"item_id": item["id"], "content_index": 0}
            yield {"type": "response.content_part.added", **part, "part": item["content"][0] | _emptied(kind)}
            yield from _pieces(kind, tokens_of(step.text), part)
            yield {"type": "response.content_part.done", **part, "part": item["content"][0]}
        case "function_call":
            size, written = step.argument_chars, item["arguments"]
            cut = [written[at : at + size] for at in range(0, len(written), size)] if size else tokens_of(written)
            yield from _pieces("function_call_arguments", cut, {"item_id": item["id"]})
    yield {"type": "response.output_item.done", "item": item}


def _pieces(kind: str, pieces: list[str], where: Item) -> Iterator[Item]:
    for piece in pieces:
        yield {"type": f"response.{kind}.delta", **where, "delta": piece}
    yield {"type": f"response.{kind}.done", **where}


def _emptied(kind: str) -> Item:
    return {"refusal": ""} if kind == "refusal" else {"text": ""}


def _call_id(call: Call) -> str:
    return f"call_{secrets.token_hex(12)}" if call.id is None else call.id


def _arguments(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)
