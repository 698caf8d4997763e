"""A conversation of 300 turns stays within the model's context, and every request of it is one that servers take."""

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from demo.script_formats import BYTES_PER_TOKEN
from tests.gateway_svc.house import House, open_house, text_of, warnings

CONTEXT_TOKENS = 4_096
READ = Call(name="read", arguments={"path": "notes.txt"})
APIS = pytest.mark.parametrize(
    ("engine", "responses"),
    [("ollama", False), ("openai", False), ("openai", True)],
    ids=["ollama", "chat completions", "responses"],
)


def house_of(tmp_path, responses: bool, *steps: Step):
    script = Script(steps=steps, context_tokens=CONTEXT_TOKENS)
    return open_house(tmp_path, script, script, CONTEXT_TOKENS, responses=responses)


def sent_tokens(house: House, engine: str) -> list[int]:
    server = house.ollama if engine == "ollama" else house.openai
    return [len(request.body) // BYTES_PER_TOKEN for request in server.requests]


@pytest.mark.long
@APIS
async def test_300_turns_stay_within_the_context(tmp_path, engine, responses):
    answer = Step(text="So it is. " * 20)
    async with house_of(tmp_path, responses, Step(tool_calls=(READ,)), answer) as house:
        (house.workspace / "notes.txt").write_text("high tide at noon\n" * 40)
        session_id, warned = None, 0
        for number in range(300):
            events = await house.run(input=f"question {number}", engine=engine, session_id=session_id)
            session_id = events[0].turn_accepted.session_id
            assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
            assert pb.WARNING_CODE_CONTEXT_EXCEEDED not in warnings(events)
            warned += pb.WARNING_CODE_HISTORY_SHORTENED in warnings(events)
        assert 200 < warned < 300, "a client is told whenever a part of the conversation is not sent"
        sizes = sent_tokens(house, engine)
        assert len(sizes) == 600, "none was refused and tried again"
        assert max(sizes) < CONTEXT_TOKENS * 3 / 4
        assert min(sizes[-100:]) > CONTEXT_TOKENS / 4, "what fits is sent"
        last = (house.ollama if engine == "ollama" else house.openai).requests[-1].body
        assert last.count(b"was left out") == last.count(b"question 299") == 1
        assert not any(cost.context_exceeded for cost in house.costs)


@pytest.mark.long
@APIS
async def test_one_long_turn_stays_within_the_context_and_its_session_goes_on(tmp_path, engine, responses):
    async with house_of(tmp_path, responses, Step(tool_calls=(READ, READ), repeat=40)) as house:
        (house.workspace / "notes.txt").write_text("high tide at noon\n" * 200)
        events = await house.run(engine=engine, max_steps=40)
        finished = events[-1].turn_finished
        assert (finished.stop_reason, finished.usage.requests) == (pb.STOP_REASON_MAX_STEPS, 40)
        assert pb.WARNING_CODE_HISTORY_SHORTENED in warnings(events)
        assert max(sent_tokens(house, engine)) < CONTEXT_TOKENS
        house.ollama.script = house.openai.script = Script(steps=(Step(text="Fresh."),), context_tokens=CONTEXT_TOKENS)
        session_id = events[0].turn_accepted.session_id
        assert text_of(await house.run(engine=engine, session_id=session_id)) == "Fresh."
        assert max(sent_tokens(house, engine)) < CONTEXT_TOKENS


@pytest.mark.long
@APIS
async def test_many_large_results_of_one_step_stay_within_the_context(tmp_path, engine, responses):
    async with house_of(tmp_path, responses, Step(tool_calls=(READ,) * 40), Step(text="Done.")) as house:
        (house.workspace / "notes.txt").write_text("high tide at noon\n" * 2_000)
        events = await house.run(engine=engine)
        assert text_of(events) == "Done."
        [told] = [event.warning.message for event in events if event.HasField("warning")]
        assert "40 results were shortened" in told, "each counts once, however often it was cut"
        events = await house.run(engine=engine, session_id=events[0].turn_accepted.session_id)
        assert text_of(events) == "Done."
        assert max(sent_tokens(house, engine)) < CONTEXT_TOKENS
