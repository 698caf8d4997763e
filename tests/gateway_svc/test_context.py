"""What is sent of a conversation fits the model's context, and is what every model server accepts."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.script_formats import check_pairs
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.wire.history import Encoded
from gateway_svc.loop.context import Context, TokenEstimator
from gateway_svc.messages import AssistantMessage, Message, SystemMessage, ToolMessage, UserMessage
from recording.calls import ToolCall

encode = OllamaEngine("http://127.0.0.1:9", "m").encode_message


def turn_of(number: int, results: list[int], *, done: bool = True) -> list[Message]:
    """A turn with one step for each size of a result."""
    messages: list[Message] = [UserMessage(f"question {number}")]
    for step, size in enumerate(results):
        call = ToolCall(f"row-{number}-{step}", f"call_{number}_{step}", "read", "{}")
        messages += [AssistantMessage("", "", (call,)), ToolMessage(call.provider_call_id, "read", "x" * size)]
    return [*messages, AssistantMessage(f"answer {number}")] if done else messages


def decoded(context: Context) -> list[dict[str, Any]]:
    return [json.loads(message.data) for message in context.encoded if isinstance(message, Encoded)]


turns = st.lists(st.lists(st.integers(0, 30_000), max_size=4), min_size=1, max_size=12)


@given(turns, st.integers(5_000, 60_000), st.booleans(), st.booleans())
def test_what_is_sent_fits_begins_with_a_user_and_has_all_pairs(sizes, room, system, done):
    history: list[Message] = [SystemMessage("be brief")] if system else []
    for number, results in enumerate(sizes):
        history += turn_of(number, results, done=done or number < len(sizes) - 1)
    context = Context(encode, history)
    whole = context.size
    changed = context.fit(room, 2_000)
    assert changed is (whole > room)
    assert context.size == sum(map(len, context.encoded)) <= room
    sent = decoded(context)
    assert check_pairs(sent) is None
    assert [message["role"] for message in sent[: 1 + system]] == ["system", "user"][1 - system :]
    assert f"question {len(sizes) - 1}" in next(m for m in reversed(sent) if m["role"] == "user")["content"]
    roles = [message["role"] for message in sent]
    assert all(pair != ("user", "user") for pair in pairwise(roles))


def test_older_turns_go_first_whole_and_behind_a_mark():
    history = [message for number in range(10) for message in turn_of(number, [100])]
    context = Context(encode, [SystemMessage("be brief"), *history, UserMessage("last")])
    context.fit(context.size - 1, 1)
    sent = decoded(context)
    assert context.left_out_turns == 1
    assert sent[0]["content"] == "be brief"
    assert sent[1]["content"].startswith("[What was said before this, 1 turns of it, was left out")
    assert sent[1]["content"].endswith("question 1")


def test_long_results_of_earlier_turns_are_shortened_before_turns_go():
    history = turn_of(0, [20_000]) + turn_of(1, [20_000]) + [UserMessage("last")]
    context = Context(encode, history)
    context.fit(20_000, 1_000)
    assert (context.shortened_results, context.left_out_turns) == (2, 0)
    assert "characters left out" in decoded(context)[2]["content"]


def test_within_a_long_turn_older_steps_go_and_the_last_step_is_told_whole():
    context = Context(encode, [UserMessage("do it")])
    for message in turn_of(0, [3_000] * 40 + [4_000], done=False)[1:]:
        context.append(message)
    context.fit(12_000, 1_000)
    sent = decoded(context)
    assert sent[-1]["content"] == "x" * 4_000
    assert "steps on this were left out" in sent[0]["content"]
    assert check_pairs(sent) is None


@pytest.mark.long
def test_what_is_sent_begins_alike_for_many_turns():
    """A model server's cache is of use only while the beginning of its requests stays the same."""
    history: list[Message] = []
    beginnings = []
    for number in range(200):
        history.append(UserMessage(f"question {number} " + "w" * 100))
        context = Context(encode, history)
        context.fit(9_000, 1_500)
        beginnings.append(json.dumps(decoded(context)[0]))
        assert context.size <= 9_000
        history.append(AssistantMessage("answer " * 20))
    assert len(set(beginnings)) < 200 / 4


def test_a_count_that_no_whole_request_has_shows_a_cut():
    context = Context(encode, [UserMessage("w" * 40_000)])
    assert not context.count(0, 4_096), "no count is no sign"
    assert not context.count(10_000, 16_384)
    assert context.count(4_096, 4_096), "the context is full"
    assert context.count(2_000, 16_384), "40 kB are more than 2,000 tokens"
    assert not context.count(10_000, 16_384)
    context.append(AssistantMessage("more"))
    assert not context.count(10_001, 16_384)
    assert context.count(6_000, 16_384), "more was sent, and less was read"


def test_the_estimate_follows_the_server_within_bounds():
    estimator = TokenEstimator()
    assert estimator.room_bytes("s", "m", 4_096) == int(3_072 * 0.9 * 3)
    estimator.learn("s", "m", 20_000, 10_000)
    assert estimator.room_bytes("s", "m", 4_096) == int(3_072 * 0.9 * 2)
    assert estimator.room_bytes("other", "m", 4_096) == int(3_072 * 0.9 * 3)
    estimator.learn("s", "m", 20_000, 1)
    assert estimator.room_bytes("s", "m", 4_096) == int(3_072 * 0.9 * 4)
    estimator.lower("s", "m", 9_000, 4_096, 4_096)
    assert estimator.room_bytes("s", "m", 4_096) < 9_000 * 0.9
