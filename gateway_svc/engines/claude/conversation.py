"""Our own transcript of what Claude's program does, in the form of every engine's history.

A message of the program comes as one line for each block, and results may come before its last line. It is appended
when the next one begins: first the message, then the results of its calls in their order.
"""

import json
from collections import deque

from uuid_utils import uuid7

from gateway_svc.engines.claude.lines import as_id, as_word
from gateway_svc.engines.wire.fields import Fields, clean
from gateway_svc.engines.wire.kept_text import KeptText
from gateway_svc.messages import AssistantMessage, Message, ToolMessage
from gateway_svc.turns.turn import Turn
from recording.calls import ToolCall
from service_kit.bounds import TEXT
from service_kit.time_slice import TimeSlice


class Conversation:
    """The main conversation of one run, without those of subagents."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._message_id = ""
        self._text = KeptText(TEXT.limit)
        self._thinking = KeptText()
        self._calls: list[ToolCall] = []
        self._results: dict[str, list[str]] = {}
        self._appended = deque[Message]()
        """Messages that are not kept yet."""
        self.empty = True
        """Whether nothing has been added yet."""

    def begin(self, message_id: str) -> None:
        """A line of this message follows. A message without calls is joined with the next: no history may have two."""
        if message_id != self._message_id:
            self._message_id = message_id
            if self._calls:
                self.append("The call's result never came.")

    def add_text(self, piece: str) -> None:
        """Adds a whole block of text."""
        self._text.append(f"\n\n{piece}" if self._text else piece)
        self.empty = False

    def add_thinking(self, piece: str) -> None:
        """Adds a whole block of reasoning."""
        self._thinking.append(f"\n\n{piece}" if self._thinking else piece)
        self.empty = False

    def add_call(self, call: ToolCall) -> None:
        """Adds a tool call."""
        self._calls.append(call)
        self.empty = False

    def add_result(self, provider_call_id: str, shown: str) -> None:
        """Adds what the model was told of a call."""
        self._results.setdefault(provider_call_id, []).append(shown)

    def append(self, missing: str, *, answered: bool = False) -> None:
        """Appends the assembled message, with `missing` in place of results that did not come.

        An answer is appended even when it is empty. Call keep() afterwards.
        """
        if not (answered or self._text or self._calls):
            return
        calls, results = tuple(self._calls), self._results
        self._appended.append(AssistantMessage(self._text.text(), self._thinking.text(), calls))
        for call in calls:
            came = results.get(call.provider_call_id)
            self._appended.append(ToolMessage(call.provider_call_id, call.name, came.pop(0) if came else missing))
        self._text, self._thinking, self._calls, self._results = KeptText(TEXT.limit), KeptText(), [], {}

    async def keep(self) -> None:
        """Keeps what was appended, which may be thousands of results: others have their turn in between.

        Raises:
            StoreUnavailable: it cannot be kept.
        """
        time_slice = TimeSlice()
        while self._appended:
            self._turn.append(self._appended[0])
            self._appended.popleft()
            if time_slice.is_over():
                await time_slice.give_way()


def tool_call(block: Fields, tool_use_id: str) -> ToolCall:
    """The call in a `tool_use` block. Input that is not an object gives malformed arguments, but still a call."""
    call_id = str(uuid7())
    try:
        arguments = json.dumps(block.get("input"), ensure_ascii=False)
    except (ValueError, RecursionError):
        arguments = ""
    return ToolCall(
        id=call_id,
        provider_call_id=tool_use_id or as_id(block.get("id")) or call_id,
        name=as_word(block.get("name")),
        arguments=clean(arguments),
    )
