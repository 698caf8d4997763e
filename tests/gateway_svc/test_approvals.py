"""What becomes of an answer that comes twice."""

import asyncio
from dataclasses import replace

import pytest

from gateway_svc.errors import AlreadyExists, NotFound
from gateway_svc.loop import answers as module
from gateway_svc.loop.answers import Answer, Answers


async def answered(answers: Answers, call_id: str, answer: Answer, by: str = "") -> Answer | None:
    waiting = asyncio.create_task(answers.wait_for(call_id))
    await asyncio.sleep(0)
    answers.give(call_id, answer, by)
    return await waiting


async def test_the_same_answer_by_the_same_caller_changes_nothing_and_any_other_is_refused():
    answers = Answers(60)
    first = Answer(allow=False, reason="not today")
    got = await answered(answers, "call-1", first, "ada")
    assert got is not None
    assert replace(got, at_ms=0) == first
    assert got.at_ms
    answers.give("call-1", first, "ada")
    for answer, by in (
        (Answer(allow=True, reason="not today"), "ada"),
        (Answer(allow=False, reason="never"), "ada"),
        (first, "bob"),
    ):
        with pytest.raises(AlreadyExists) as raised:
            answers.give("call-1", answer, by)
        assert (raised.value.resource, raised.value.id) == ("tool_call", "call-1")
    with pytest.raises(NotFound) as unknown:
        answers.give("call-2", first, "ada")
    assert (unknown.value.resource, unknown.value.id) == ("tool_call", "call-2")


async def test_a_call_that_nobody_answered_in_time_cannot_be_answered_later():
    answers = Answers(0)
    assert await answers.wait_for("call-1") is None
    with pytest.raises(NotFound):
        answers.give("call-1", Answer(allow=True))


@pytest.mark.parametrize(("name", "bound"), [("MAX_REMEMBERED", 2), ("REMEMBERED_SECONDS", 0.0)])
async def test_answers_are_remembered_for_a_time_and_to_a_number(monkeypatch, name, bound):
    monkeypatch.setattr(module, name, bound)
    answers = Answers(60)
    for call_id in ("call-1", "call-2", "call-3"):
        await answered(answers, call_id, Answer(allow=True))
    with pytest.raises(NotFound):
        answers.give("call-1", Answer(allow=True))
