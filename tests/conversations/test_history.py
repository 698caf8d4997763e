"""A history that is cut or damaged anywhere becomes one that every model server accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.conversations.history import closing_messages, mended
from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from recording.calls import ToolCall

CALL = ToolCall("row-1", "call_1", "bash", '{"command": "ls"}')
CALL_2 = ToolCall("row-2", "call_1", "read", "{malformed")

steps = st.lists(
    st.builds(ToolCall, st.just("row"), st.sampled_from(["a", "b"]), st.sampled_from(["bash", "read"]), st.just("{}")),
    min_size=1,
    max_size=3,
)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Turns that have ended."""
    said: list[Message] = []
    for number in range(draw(st.integers(0, 3))):
        said.append(UserMessage(f"question {number}"))
        for calls in draw(st.lists(steps, max_size=3)):
            said.append(AssistantMessage("", "", tuple(calls)))
            said += [ToolMessage(call.provider_call_id, call.name, "result") for call in calls]
        said.append(AssistantMessage("answer"))
    return said


def what_servers_refuse(history: list[Message]) -> list[str]:
    refused, waiting = [], list[ToolCall]()
    for before, message in zip([None, *history], history, strict=False):
        if isinstance(message, ToolMessage):
            if not waiting or waiting.pop(0).provider_call_id != message.provider_call_id:
                refused.append("a result without its call")
            continue
        if waiting:
            refused.append("a call without its result")
        waiting = list(message.tool_calls) if isinstance(message, AssistantMessage) else []
        if isinstance(message, UserMessage) and isinstance(before, UserMessage | ToolMessage):
            refused.append("a user who speaks twice")
        if isinstance(message, AssistantMessage) and not isinstance(before, UserMessage | ToolMessage):
            refused.append("a model that speaks unasked")
    return refused


@given(histories())
def test_a_whole_history_stays_as_it_is(history):
    assert mended(history) == history
    assert what_servers_refuse(history) == []


@given(histories(), st.data())
def test_a_history_that_lacks_messages_keeps_the_others_and_is_one_that_servers_accept(history, data):
    left = [message for message in history if data.draw(st.booleans())]
    whole = mended(left)
    assert what_servers_refuse(whole) == []
    rest = iter(whole)
    assert all(any(message == other for other in rest) for message in left), "each is there, in its order"


@pytest.mark.parametrize(
    ("history", "missing"),
    [
        ([], []),
        ([UserMessage("hi"), AssistantMessage("done")], []),
        ([UserMessage("hi")], [AssistantMessage("note")]),
        (
            [UserMessage("hi"), AssistantMessage("", "", (CALL, CALL_2))],
            [ToolMessage("call_1", "bash", "note"), ToolMessage("call_1", "read", "note"), AssistantMessage("note")],
        ),
        (
            [UserMessage("hi"), AssistantMessage("", "", (CALL, CALL_2)), ToolMessage("call_1", "bash", "ok")],
            [ToolMessage("call_1", "read", "note"), AssistantMessage("note")],
        ),
        (
            [UserMessage("hi"), AssistantMessage("", "", (CALL,)), ToolMessage("call_1", "bash", "ok")],
            [AssistantMessage("note")],
        ),
    ],
)
def test_a_history_cut_anywhere_gets_what_every_server_wants(history, missing):
    assert closing_messages(history, "note") == missing
    assert closing_messages(history + missing, "note") == []
