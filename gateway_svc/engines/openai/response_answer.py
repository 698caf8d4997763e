"""Assembles the events of one streamed response of OpenAI's Responses API.

Each item of the output comes up to four times: in pieces, as a finished part, as a finished item, and at the end of the
response. Servers leave out any of these, and send items in any order. So events are gathered by item, and each item
counts once.
"""

import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway_svc.engines import StepResult
from gateway_svc.engines.openai.response_items import ITEM_FIELDS, sendable
from gateway_svc.engines.wire.answer import Answer, BadEnd
from gateway_svc.engines.wire.encoding import build_calls, encode, parse_arguments
from gateway_svc.engines.wire.failures import error_in, presentable
from gateway_svc.engines.wire.fields import Fields, clean, fields, items, label, maybe_count, text
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.usage import TokenCounts
from gateway_svc.messages import AssistantMessage, Native
from service_kit.bounds import ARGUMENTS, CALLS, HELD, PARTS

_PLAIN_KINDS = ("message", "function_call")
_UNOFFERED = {
    *("custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call"),
    "mcp_approval_request",
}
"""Items that wait for the client, which has offered nothing of the kind: a response is not finished with one."""
_INCOMPLETE: dict[str, Literal["length", "content_filter"]] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
"""Reasons for which an incomplete response counts as an end. Any other is a failure."""


@dataclass(slots=True)
class _Item:
    """What is known of one item of the output."""

    index: int | None
    """Its place in the output, if the server numbers items."""
    arrival: int
    item: dict[str, Any] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    """Pieces of its text, or of its arguments."""
    whole: str | None = None
    """Its text or its arguments, from the event that says it is done."""
    is_done: bool = False

    def kind(self) -> str:
        return label(self.item.get("type"))

    def may_be(self, kind: str, call_id: str) -> bool:
        """Whether an item of this kind, with this call id if there is one, may be this item."""
        other_call = call_id and self.item.get("call_id") not in (None, call_id)
        return self.kind() in ("", kind) and not other_call

    def is_call(self, call_id: str, index: int | None, item_id: str) -> bool:
        """Whether it is the call with this id. Two calls may share an id: then index and item id differ."""
        placed_otherwise = None not in (index, self.index) and index != self.index
        named_otherwise = bool(item_id and self.item.get("id")) and item_id != self.item.get("id")
        return bool(call_id) and self.item.get("call_id") == call_id and not (placed_otherwise and named_otherwise)

    def is_open(self, index: int | None, item_id: str) -> bool:
        """Whether it may receive events that do not name it, or that name it for the first time."""
        named_otherwise = item_id and self.item.get("id")
        numbered_otherwise = index is not None and self.index is not None
        return not (self.is_done or named_otherwise or numbered_otherwise)

    def said(self) -> str:
        """The text of a message."""
        content = self.item.get("content")
        parts = map(fields, [{"text": content}] if isinstance(content, str) else items(content))
        told = "".join(text(part.get("text")) or text(part.get("refusal")) for part in parts)
        return max((told, self.whole or "", "".join(self.pieces)), key=len)

    def arguments(self) -> str:
        """The arguments of a call. LM Studio finishes an item with an empty object for those that it told before."""
        told = self.item.get("arguments")
        written = json.dumps(told) if isinstance(told, dict) else text(told)
        ways = [way.strip() for way in (written, self.whole or "", "".join(self.pieces))]
        return next((way for way in ways if way not in ("", "{}")), "") or next(filter(None, ways), "")


class ResponseAnswer(Answer):
    def __init__(self, names: WireNames, origin: str) -> None:
        """`origin` names the API and the server that the answer comes from."""
        self._names = names
        self._origin = origin
        self._items: list[_Item] = []
        self._placed: dict[int, list[_Item]] = {}
        """Items by the place in the output."""
        self._called: dict[str, dict[int, _Item]] = {}
        """Items by each call id that they ever had, and their arrival."""
        self._named: dict[str, dict[int, _Item]] = {}
        """Items by each id that they ever had, and their arrival."""
        self._open: dict[int, _Item] = {}
        """Items that are not done, by their arrival."""
        self._said: list[str] = []
        self._is_torn = False
        """Whether the pieces of a text differ from the whole text."""
        self._model = ""
        self._finish: Literal["stop", "length", "content_filter"] = "stop"
        self._tokens = TokenCounts()

    def take(self, chunk: Fields) -> str:
        match label(chunk.get("type")):
            case "response.output_text.delta" | "response.refusal.delta":
                item = self._item(chunk, "message")
                item.pieces.append(text(chunk.get("delta")))
                return self._say(item.pieces[-1])
            case "response.output_text.done" | "response.refusal.done":
                return self._take_text(chunk)
            case "response.function_call_arguments.delta":
                piece = text(chunk.get("delta"))
                self.tally.add(ARGUMENTS, len(piece))
                self._item(chunk, "function_call").pieces.append(piece)
            case "response.function_call_arguments.done":
                item = self._item(chunk, "function_call")
                item.whole = text(chunk.get("arguments"))
                self._end(item)
                self.tally.add(HELD, len(item.whole))
                if name := label(chunk.get("name")):
                    item.item.setdefault("name", name)
            case "response.content_part.done":
                part = fields(chunk.get("part"))
                return "" if "reasoning" in label(part.get("type")) else self._take_text({**chunk, **part})
            case "response.output_item.added":
                self._take_item(chunk, fields(chunk.get("item")), is_done=False)
            case "response.output_item.done":
                return self._take_item(chunk, fields(chunk.get("item")), is_done=True)
            case "response.completed" | "response.incomplete" | "response.done":
                return self._take_end(fields(chunk.get("response")), chunk["type"].removeprefix("response."))
            case _:
                if chunk.get("object") == "response":  # from a server that does not stream though asked to
                    return self._take_end(chunk, "")
                if isinstance(response := chunk.get("response"), dict):
                    self._model = label(response.get("model")) or self._model
        return ""

    def result(self, model: str) -> StepResult:
        output = _once(
            sorted(self._items, key=lambda item: (item.arrival if item.index is None else item.index, item.arrival))
        )
        asked = [item for item in output if item.kind() == "function_call"]
        if self._is_torn:
            raise BadEnd("sent pieces of text that differ from the whole text")
        if self._finish == "stop" and not all(map(_is_whole, asked)):
            raise BadEnd("ended its answer with a call that is not whole")
        if self._finish == "stop" and (unoffered := {item.kind() for item in output} & _UNOFFERED):
            raise BadEnd(f"ended its answer with what was not offered to it: {', '.join(sorted(unoffered))}")
        calls = build_calls(
            (text(call.item.get("call_id")), self._names.to_own(text(call.item.get("name"))), call.arguments() or "{}")
            for call in asked
        )
        said = "".join(self._said)
        thought = clean("\n\n".join(filter(None, (_thought(item.item) for item in output))))
        answered = bool(said or thought or calls)
        usage = self._tokens.usage(answered=answered)
        if not answered and not usage.output_tokens and self._finish == "stop":
            raise BadEnd("ended its answer without having said anything")
        items_back: tuple[str, ...] = ()
        if [call.provider_call_id for call in calls] == [call.item.get("call_id") for call in asked]:
            items_back = _items_back(output)
        message = AssistantMessage(said, thought, calls, Native(self._origin, model, items_back))
        return StepResult(message, usage, self._model or model, self._finish)

    def _item(self, chunk: Fields, kind: str, told: Fields | None = None) -> _Item:
        """The item that an event belongs to, by whatever the server identifies it by; a new one if none matches."""
        index, told = maybe_count(chunk.get("output_index")), told or {}
        item_id, call_id = label(chunk.get("item_id")) or label(told.get("id")), label(told.get("call_id"))
        placed = () if index is None else self._placed.get(index, ())
        ways = (
            (item for item in self._called.get(call_id, {}).values() if item.is_call(call_id, index, item_id)),
            placed,
            (item for item in self._named.get(item_id, {}).values() if item.item.get("id") == item_id),
            (item for item in reversed(self._open.values()) if item.is_open(index, item_id)),
        )
        if found := next((item for way in ways for item in way if item.may_be(kind, call_id)), None):
            return found
        self.tally.add(PARTS)
        if kind == "function_call":
            self.tally.add(CALLS)
        made = _Item(index, len(self._items))
        made.item = {"type": kind} | ({"id": item_id} if item_id else {})
        self._items.append(made)
        self._open[made.arrival] = made
        if index is not None:
            self._placed.setdefault(index, []).append(made)
        self._know(made)
        return made

    def _know(self, item: _Item) -> None:
        """Finds an item by the ids that it has now, too."""
        if call_id := label(item.item.get("call_id")):
            self._called.setdefault(call_id, {})[item.arrival] = item
        if item_id := label(item.item.get("id")):
            self._named.setdefault(item_id, {})[item.arrival] = item

    def _end(self, item: _Item) -> None:
        item.is_done = True
        self._open.pop(item.arrival, None)

    def _take_text(self, chunk: Fields) -> str:
        item = self._item(chunk, "message")
        whole = text(chunk.get("text")) or text(chunk.get("refusal"))
        streamed = "".join(item.pieces)
        if whole and streamed.endswith(whole):  # a later part
            return ""
        if not whole.startswith(streamed):
            self._is_torn = self._is_torn or bool(whole)
            return ""
        item.pieces.append(whole[len(streamed) :])
        return self._say(item.pieces[-1])

    def _take_item(self, chunk: Fields, told: Fields, *, is_done: bool) -> str:
        self.tally.add(HELD, len(encode(told)))
        known = self._item(chunk, label(told.get("type")), told)
        known.item |= {name: value for name, value in told.items() if value not in (None, "", [], {})}
        self._know(known)
        if is_done:
            self._end(known)
        if known.kind() != "message" or not is_done:
            return ""
        streamed, whole = "".join(known.pieces), known.said()
        self._is_torn = self._is_torn or not whole.startswith(streamed)
        rest = whole[len(streamed) :]
        known.pieces.append(rest)
        return self._say(rest)

    def _take_end(self, response: Fields, event: str) -> str:
        self._model = label(response.get("model")) or self._model
        self._tokens.take(response.get("usage"))
        status = label(response.get("status")).lower() or (event if event != "done" else "")
        if "incomplete" in (status, event):
            reason = text(fields(response.get("incomplete_details")).get("reason"))
            if reason not in _INCOMPLETE:
                raise BadEnd(f"left its answer incomplete for the reason {presentable(reason)[:100] or '(none)'}")
            self._finish = _INCOMPLETE[reason]
        elif status != "completed":
            told = error_in({"error": response.get("error")})
            why = f" and says: {presentable(told.text)}" if told and told.text else ""
            raise BadEnd(f"ended its answer with the status {presentable(status)[:100] or '(none)'}{why}")
        output = [dict(fields(item)) for item in items(response.get("output"))]
        said = self._take_output(output)
        if not self._said and not output:
            said = self._say(label(response.get("output_text")))
        self.complete = self.ended = True
        return said

    def _take_output(self, output: list[dict[str, Any]]) -> str:
        """Takes the final output. Each item is the known one at its index, or the one of its kind at the same place."""
        said, numbered = "", not self._items or any(item.index is not None for item in self._items)
        alike = defaultdict[str, deque[_Item]](deque)
        if not numbered:
            for known in self._items:
                alike[known.kind()].append(known)
        for at, item in enumerate(output):
            kind = label(item.get("type"))
            if kind != "function_call" and alike[kind]:
                known = alike[kind].popleft()
                known.is_done = False
                self._open[known.arrival] = known
                item["id"] = known.item.get("id") or item.get("id")
            said += self._take_item({"output_index": at} if numbered else {}, item, is_done=True)
        return said

    def _say(self, piece: str) -> str:
        piece = clean(piece)
        self._said.append(piece)
        return piece


def _once(output: list[_Item]) -> list[_Item]:
    """The items without calls that were told again at another place: with the id, name and arguments of another."""
    told = set[tuple[str, str, str]]()
    once = []
    for item in output:
        if item.kind() == "function_call" and (held := parse_arguments(item.arguments())) is not None:
            call = label(item.item.get("call_id")), label(item.item.get("name")), json.dumps(held, sort_keys=True)
            if call[0] and call in told:
                continue
            told.add(call)
        once.append(item)
    return once


def _is_whole(call: _Item) -> bool:
    """Whether the server said that a call is complete: only it can know that a call has no arguments."""
    return call.is_done and call.item.get("status", "completed") in ("completed", "in_progress")


def _thought(item: Fields) -> str:
    if item.get("type") != "reasoning":
        return ""
    parts = [*items(item.get("summary")), *items(item.get("content"))]
    return "\n\n".join(filter(None, (text(fields(part).get("text")) for part in parts)))


def _items_back(output: list[_Item]) -> tuple[str, ...]:
    """The output to send back, each item as JSON; none if text and calls say all of it.

    Servers refuse reasoning that nothing follows, as in an answer that was cut, and unencrypted reasoning by its id,
    since nothing is kept at the server.
    """
    known = [item for item in output if item.kind() in ITEM_FIELDS]
    if all(item.kind() in _PLAIN_KINDS and "phase" not in item.item for item in known):
        return ()
    if known[-1].kind() not in _PLAIN_KINDS:
        return ()
    if any(item.kind() == "reasoning" and not item.item.get("encrypted_content") for item in known):
        return ()
    calls = [item for item in known if item.kind() == "function_call"]
    # llama.cpp refuses a history with arguments that are not JSON
    if any(parse_arguments(call.arguments()) is None for call in calls):
        return ()
    for item in known:
        if item.kind() == "function_call":
            item.item["arguments"] = item.arguments()
        elif item.kind() == "message" and not item.item.get("content"):
            item.item["content"] = [{"type": "output_text", "text": item.said()}]
    return tuple(encode(sendable(item.item)).decode() for item in known)
