"""What an answer does: it counts once, for the arguments that were shown, and for one call."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.errors import AlreadyExists, DigestMismatch, GatewayError, NotFound
from gateway_svc.loop import answers as module
from gateway_svc.loop.answers import Answer, Answers
from recording.args_key import ArgsKey, open_args_key
from tests.support.examples import examples

KEY = ArgsKey("key", b"k" * 32)


def waits(call_id: str, arguments: str = "{}") -> audit_pb2.AuditRow:
    digest = common_pb2.ArgsDigest(key_id=KEY.id, hmac_sha256=KEY.digest(arguments))
    return audit_pb2.AuditRow(id=call_id, args_digest=digest)


async def answered(answers: Answers, call_id: str, answer: Answer, by: str = "") -> Answer | None:
    with answers.expect(waits(call_id), "") as pending:
        answers.give(call_id, answer, by, KEY.digest("{}"))
        return await pending.answer()


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
            answers.give("call-1", answer, by, KEY.digest("{}"))
        assert (raised.value.resource, raised.value.id) == ("tool_call", "call-1")
    with pytest.raises(NotFound) as unknown:
        answers.give("call-2", first, "ada")
    assert (unknown.value.resource, unknown.value.id) == ("tool_call", "call-2")


async def test_a_call_that_nobody_answered_in_time_cannot_be_answered_later():
    answers = Answers(0)
    with answers.expect(waits("call-1"), "") as pending:
        assert await pending.answer() is None
        assert not answers.waiting
        with pytest.raises(NotFound):
            answers.give("call-1", Answer(allow=True), "", KEY.digest("{}"))


@pytest.mark.parametrize(("name", "bound"), [("MAX_REMEMBERED", 2), ("REMEMBERED_SECONDS", 0.0)])
async def test_answers_are_remembered_for_a_time_and_to_a_number(monkeypatch, name, bound):
    monkeypatch.setattr(module, name, bound)
    answers = Answers(60)
    for call_id in ("call-1", "call-2", "call-3"):
        await answered(answers, call_id, Answer(allow=True))
    with pytest.raises(NotFound):
        answers.give("call-1", Answer(allow=True), "", KEY.digest("{}"))


@pytest.mark.parametrize("digest", [b"", b"x" * 32, KEY.digest('{"a":1}')], ids=["none", "wrong", "other arguments"])
async def test_a_call_is_allowed_with_the_digest_of_its_arguments_alone(digest):
    answers = Answers(60)
    with answers.expect(waits("call-1"), "") as pending:
        with pytest.raises(DigestMismatch):
            answers.give("call-1", Answer(allow=True), "", digest)
        assert answers.waiting == [pending], "and waits on"


async def test_a_refusal_needs_no_digest():
    assert await answered(Answers(60), "call-1", Answer(allow=False)) is not None
    answers = Answers(60)
    with answers.expect(waits("call-1"), "") as pending:
        answers.give("call-1", Answer(allow=False))
        assert (await pending.answer() or Answer(allow=True)).allow is False


CALLS = st.sampled_from(['{"a":1}', '{ "a" : 1 }', '{"a":2}', '{"b":1,"a":1}', '{"a":1,"b":1}', "no json", "[]", ""])
TRIES = st.lists(st.tuples(st.integers(0, 3), CALLS, st.booleans()), max_size=12)


@settings(max_examples=examples(60), deadline=None)
@given(calls=st.lists(CALLS, min_size=1, max_size=4), tries=TRIES)
def test_an_approved_call_runs_with_the_approved_arguments_or_not_at_all(calls: Sequence[str], tries):
    """Whatever is sent between, for whichever call: each approval that counted was of that call's own arguments."""

    async def play() -> None:
        answers = Answers(60)
        approved: dict[str, str] = {}

        async def run(number: int, arguments: str) -> None:
            call_id = f"call-{number}"
            with answers.expect(waits(call_id, arguments), "") as pending:
                answer = await pending.answer()
            if answer is not None and answer.allow:
                assert KEY.digest(approved[call_id]) == KEY.digest(arguments)

        running = [asyncio.create_task(run(*call)) for call in enumerate(calls)]
        await asyncio.sleep(0)
        for number, arguments, allow in tries:
            call_id = f"call-{number}"
            try:
                answers.give(call_id, Answer(allow), "ada", KEY.digest(arguments))
            except GatewayError:
                continue
            if allow:
                approved.setdefault(call_id, arguments)
        for call_id in [pending.intent.id for pending in answers.waiting]:
            answers.give(call_id, Answer(allow=False))
        await asyncio.gather(*running)

    asyncio.run(play())


def test_equal_arguments_have_equal_digests_and_the_key_outlives_a_restart(tmp_path: Path):
    key = open_args_key(tmp_path)
    assert key.digest('{"b": [1, 2], "a": "é"}') == key.digest('{"a":"\\u00e9","b":[1,2]}')
    assert key.digest('{"a":1}') != key.digest('{"a":"1"}')
    assert open_args_key(tmp_path) == key
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o077 == 0, "nobody else reads it"
    file.write_text("torn", "utf-8")
    other = open_args_key(tmp_path)
    assert (other.id == key.id, other.key == key.key) == (False, False), "and another key says so by its id"


def test_producers_that_share_a_file_of_keys_have_equal_digests_and_its_first_key_is_the_one(tmp_path: Path):
    shared, folders = tmp_path / "keys", [tmp_path / "one", tmp_path / "two"]
    shared.write_text(f"may {'a1' * 32}\n", "utf-8")
    one, two = (open_args_key(folder, shared) for folder in folders)
    assert (one.id, one.digest("{}")) == (two.id, two.digest("{}")) == ("may", one.digest("{ }"))
    shared.write_text(f"june {'b2' * 32}\nmay {'a1' * 32}\n", "utf-8")
    later = open_args_key(folders[0], shared)
    assert (later.id, later.digest("{}") == one.digest("{}")) == ("june", False)
    assert not any(map(Path.exists, folders)), "and none has a key of its own"
