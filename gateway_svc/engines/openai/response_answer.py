"""Puts the events of one streamed response together, of OpenAI's Responses API.

Events that tell a whole part again, and those of OpenAI's own tools, are passed over: text is taken from its deltas and
everything else from the items when they are done, which also holds for events that are not known yet.
"""

import json
from typing import Any, Literal

from gateway_svc.engines import StepResult
from gateway_svc.engines.wire.encoding import build_calls, encode, parse_arguments
from gateway_svc.engines.wire.fields import Fields, clean, count, fields, items, text
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.messages import AssistantMessage, Native
from recording.calls import Usage

_DELTAS = ("response.output_text.delta", "response.refusal.delta")
_PLAIN_KINDS = ("message", "function_call")


class ResponseAnswer:
    """See gateway_svc.engines.wire.http.Answer."""

    def __init__(self, names: WireNames, origin: str) -> None:
        """`origin` names the API and the server that the answer comes from."""
        self.complete = self.ended = False
        self._names = names
        self._origin = origin
        self._text: list[str] = []
        self._streamed = False
        """Whether the text of the message under way came in pieces."""
        self._output: list[Fields] = []
        """The items that are done, in the order in which they were: llama.cpp numbers none."""
        self._model = ""
        self._finish: Literal["stop", "length", "content_filter"] = "stop"
        self._usage = Usage(complete=False)

    def take(self, chunk: Fields) -> str:
        """See Answer."""
        kind = text(chunk.get("type"))
        if kind in _DELTAS:
            self._streamed = True
            return self._say(text(chunk.get("delta")))
        if kind == "response.output_item.done":
            return self._take_item(fields(chunk.get("item")))
        if kind in ("response.completed", "response.incomplete"):
            return self._take_end(fields(chunk.get("response")))
        if chunk.get("object") == "response":  # from a server that was asked to stream and does not
            return self._take_end(chunk)
        if (response := chunk.get("response")) is not None:
            self._model = text(fields(response).get("model")) or self._model
        return ""

    def result(self, model: str) -> StepResult:
        """See Answer."""
        asked = [item for item in self._output if item.get("type") == "function_call"]
        calls = build_calls(
            (text(item.get("call_id")), self._names.to_own(text(item.get("name"))), _arguments(item)) for item in asked
        )
        thinking = "\n\n".join(filter(None, map(_thought, self._output)))
        native = None
        if [call.tool_call_id for call in calls] == [item.get("call_id") for item in asked]:
            native = self._native(model)
        message = AssistantMessage("".join(self._text), clean(thinking), calls, native)
        return StepResult(message, self._usage, self._model or model, self._finish)

    def _say(self, piece: str) -> str:
        piece = clean(piece)
        self._text.append(piece)
        return piece

    def _take_item(self, item: Fields) -> str:
        self._output.append(item)
        if item.get("type") != "message":
            return ""
        streamed, self._streamed = self._streamed, False
        if streamed:
            return ""
        parts = map(fields, items(item.get("content")))
        return self._say("".join(text(part.get("text")) or text(part.get("refusal")) for part in parts))

    def _take_end(self, response: Fields) -> str:
        self.complete = self.ended = True
        self._model = text(response.get("model")) or self._model
        if response.get("usage") is not None:
            self._usage = _usage(fields(response["usage"]))
        if response.get("status") == "incomplete":
            reason = text(fields(response.get("incomplete_details")).get("reason"))
            self._finish = "content_filter" if reason == "content_filter" else "length"
        told = list(map(fields, items(response.get("output"))))
        if self._output:  # some servers tell of messages as they are done, and of calls here alone
            done = {text(item.get("call_id")) for item in self._output if item.get("type") == "function_call"}
            told = [
                item for item in told if item.get("type") == "function_call" and text(item.get("call_id")) not in done
            ]
        return "".join(map(self._take_item, told))

    def _native(self, model: str) -> Native | None:
        """The output for sending it back, where text and calls do not say all of it.

        A thought that nothing follows, as of an answer that was cut, is refused when it comes back.
        """
        output = self._output
        if all(item.get("type") in _PLAIN_KINDS and "phase" not in item for item in output):
            return None
        if output[-1].get("type") not in _PLAIN_KINDS:
            return None
        if any(item.get("type") == "function_call" and not _is_sound(item) for item in output):
            return None
        return Native(self._origin, model, tuple(encode(_sendable(item)).decode() for item in output))


def _sendable(item: Fields) -> dict[str, Any]:
    """An item as it may be sent back: a null, and the status of a thought, are refused in a request."""
    left_out = ("status",) if item.get("type") == "reasoning" else ()
    return {name: value for name, value in item.items() if value is not None and name not in left_out}


def _is_sound(call: Fields) -> bool:
    """Whether a call can be sent back as it came: llama.cpp refuses a history with arguments that are no JSON."""
    return parse_arguments(text(call.get("arguments"))) is not None


def _arguments(call: Fields) -> str:
    arguments = call.get("arguments")
    return (json.dumps(arguments) if isinstance(arguments, dict) else text(arguments)).strip() or "{}"


def _thought(item: Fields) -> str:
    if item.get("type") != "reasoning":
        return ""
    parts = [*items(item.get("summary")), *items(item.get("content"))]
    return "\n\n".join(filter(None, (text(fields(part).get("text")) for part in parts)))


def _usage(usage: Fields) -> Usage:
    read, written = fields(usage.get("input_tokens_details")), fields(usage.get("output_tokens_details"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")),
        output_tokens=count(usage.get("output_tokens")),
        cached_input_tokens=count(read.get("cached_tokens")),
        reasoning_tokens=count(written.get("reasoning_tokens")),
    )
