"""What models are told where a history is not whole: cut off by the end of its turn, or damaged on disk.

Servers refuse a tool call without its result and a result without its call, and some chat templates refuse two messages
of the user in a row.
"""

from collections.abc import Iterable

from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from recording.calls import ToolCall

LOST = "(This part of the conversation was damaged, and is lost.)"


def closing_messages(messages: list[Message], note: str) -> list[Message]:
    """The messages that complete the history of an unfinished turn, so that every model server accepts it."""
    results = 0
    for last in reversed(messages):
        if not isinstance(last, ToolMessage):
            break
        results += 1
    else:
        return []
    if isinstance(last, AssistantMessage) and not last.tool_calls:
        return []
    unanswered = last.tool_calls[results:] if isinstance(last, AssistantMessage) else ()
    return [*(ToolMessage(call.provider_call_id, call.name, note) for call in unanswered), AssistantMessage(note)]


def mended(messages: Iterable[Message]) -> list[Message]:
    """A history that lacks messages anywhere, with a note in their places, so that every model server accepts it.

    A history that lacks none comes back as it is. An unfinished turn at its end stays unfinished.
    """
    whole: list[Message] = []
    waiting: list[ToolCall] = []
    """The last answer's calls whose results have not come."""
    for message in messages:
        if isinstance(message, ToolMessage):
            at = next((at for at, call in enumerate(waiting) if _answers(message, call)), None)
            if at is None:
                whole += _results(waiting)
                waiting = []
                _put(whole, _asking_for(message))
            else:
                whole += _results(waiting[:at])
                waiting = waiting[at + 1 :]
            whole.append(message)
        else:
            whole += _results(waiting)
            waiting = list(message.tool_calls) if isinstance(message, AssistantMessage) else []
            _put(whole, message)
    return whole


def _put(whole: list[Message], message: Message) -> None:
    """Adds what the user or the model said, with a note in the place of the other's words between two of the same."""
    before = whole[-1] if whole else None
    if isinstance(message, UserMessage) and isinstance(before, UserMessage | ToolMessage):
        whole.append(AssistantMessage(LOST))
    elif isinstance(message, AssistantMessage) and not isinstance(before, UserMessage | ToolMessage):
        whole.append(UserMessage(LOST))
    whole.append(message)


def _answers(result: ToolMessage, call: ToolCall) -> bool:
    return (result.provider_call_id, result.tool_name) == (call.provider_call_id, call.name)


def _results(calls: list[ToolCall]) -> list[Message]:
    return [ToolMessage(call.provider_call_id, call.name, LOST) for call in calls]


def _asking_for(result: ToolMessage) -> AssistantMessage:
    """An answer with the call that a result belongs to, in the place of the one that is lost."""
    return AssistantMessage(LOST, tool_calls=(ToolCall("", result.provider_call_id, result.tool_name, "{}"),))
