"""What the model is told when a server refuses a conversation or cuts an answer."""

import re
from collections.abc import Callable, Sequence

from onrecord.common.v1 import common_pb2

from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from recording.calls import ToolResult

CUT_CALLS = {
    "length": ToolResult(
        "The call was not run: the limit of output tokens cut your answer before it was whole. Write less at once, such"
        " as a long file in several parts.",
        common_pb2.OUTCOME_INVALID_CALL,
        "the answer was cut by the limit of output tokens",
    ),
    "content_filter": ToolResult(
        "The call was not run: a content filter cut your answer.",
        common_pb2.OUTCOME_INVALID_CALL,
        "the answer was cut by a content filter",
    ),
}
"""Results for the calls of an answer that ended badly: nobody knows whether they are complete."""
NOT_PARSED = AssistantMessage("(a tool call that could not be read)")
WRITE_AGAIN = UserMessage(
    "Your last tool call could not be parsed. Write it once more, with its arguments as one valid JSON object."
)
CONTENT_REFUSED = AssistantMessage(
    "(The model server refused this for its content. What came last before it is withheld from then on.)"
)
_WITHHELD = "(withheld: the model server refused it for its content)"
_LIMIT = re.compile(
    r"(?:maximum (?:context|prompt) length is |maximum (?:number of tokens|allowed)?[^0-9]{0,30}"
    r"|context (?:length|window|size)[^0-9]{0,30}|limit[^0-9]{0,8}|up to |\[1, |> |<= )"
    r"(\d{3,8})|(\d{3,8})(?: tokens)? (?:maximum|context)",
    re.IGNORECASE,
)
_BYTES_PER_TOKEN = 3


class ContextSizes:
    """The sizes of models' contexts in tokens: as configured, or known, or learned from refusals."""

    def __init__(self, known: Callable[[str], int | None]) -> None:
        self._known = known
        self._told: dict[str, int] = {}

    def of(self, model: str) -> int | None:
        """The size of a model's context; None if unknown."""
        sizes = [size for size in (self._known(model), self._told.get(model)) if size]
        return min(sizes, default=None)

    def refused(self, model: str, words: str, sent_bytes: int) -> int:
        """Takes a refusal of a request of sent_bytes, and returns the context size that follows from it.

        Most servers name it. Otherwise, and if it is unknown, it is smaller than what was sent.
        """
        if found := _LIMIT.search(words):
            self._told[model] = min(int(found[1] or found[2]), self._told.get(model, 2**31))
        elif self.of(model) is None:
            self._told[model] = max(512, sent_bytes // _BYTES_PER_TOKEN)
        return self.of(model) or 512


def is_refusal(message: AssistantMessage) -> bool:
    """Whether it is the mark of a refusal, before which withhold() takes something out."""
    return message.text == CONTENT_REFUSED.text


def withhold(messages: Sequence[Message]) -> list[Message]:
    """A conversation without what a server refused for its content: the results or input right before the mark."""
    told = list(messages)
    for mark, message in enumerate(messages):
        if not (isinstance(message, AssistantMessage) and is_refusal(message)):
            continue
        for at in range(mark - 1, -1, -1):
            match told[at]:
                case ToolMessage(provider_call_id, tool_name):
                    told[at] = ToolMessage(provider_call_id, tool_name, _WITHHELD)
                case UserMessage() if at == mark - 1:
                    told[at] = UserMessage(_WITHHELD)
                    break
                case _:
                    break
    return told
