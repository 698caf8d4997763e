"""A conversation of 300 turns stays within the model's context, and every request of it is one that servers take."""

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step, Tokens
from demo.script_formats import BYTES_PER_TOKEN
from tests.e2e.conftest import kinds, run_turn, text_of

CONTEXT_TOKENS = 4_096
STEPS = (Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),)), Step(text="So it is. " * 20))
SETTINGS = {
    "GATEWAY_OLLAMA_NUM_CTX": str(CONTEXT_TOKENS),
    "GATEWAY_OPENAI_CONTEXT_TOKENS": str(CONTEXT_TOKENS),
    "GATEWAY_TOOLS": "read",
}


def warnings(events: list[pb.TurnEvent]) -> list[int]:
    return [event.warning.code for event in events if event.HasField("warning")]


@pytest.mark.parametrize(("engine", "api"), [("ollama", "chat"), ("openai", "chat"), ("openai", "responses")])
async def test_300_turns_stay_within_the_context(make_pair, engine, api):
    pair = await make_pair(Script(steps=STEPS, context_tokens=CONTEXT_TOKENS))
    (pair.workspace / "notes.txt").write_text("high tide at noon\n" * 40)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(**SETTINGS, GATEWAY_OPENAI_API=api))
    session_id, warned = "", 0
    for number in range(300):
        events = await run_turn(gateway, input=f"question {number}", engine=engine, session_id=session_id)
        session_id = events[0].turn_started.session_id
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
        codes = warnings(events)
        assert pb.WARNING_CODE_CONTEXT_EXCEEDED not in codes
        warned += pb.WARNING_CODE_HISTORY_SHORTENED in codes
    assert 200 < warned < 300, "a client is told whenever a part of the conversation is not sent"
    sizes = [len(request.body) // BYTES_PER_TOKEN for request in pair.model.requests]
    assert len(sizes) == 600, "none was refused and tried again"
    assert max(sizes) < CONTEXT_TOKENS * 3 / 4
    assert min(sizes[-100:]) > CONTEXT_TOKENS / 4, "what fits is sent"
    last = pair.model.requests[-1].body
    assert last.count(b"was left out") == 1
    assert last.count(b"question 299") == 1
    assert pair.query("SELECT count(*) FROM cost_log WHERE context_exceeded") == [(0,)]


@pytest.mark.parametrize("engine", ["ollama", "openai"])
async def test_one_long_turn_stays_within_the_context(make_pair, engine):
    steps = (Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),) * 2, repeat=40), Step(text="Done."))
    pair = await make_pair(Script(steps=steps, context_tokens=CONTEXT_TOKENS, check=True))
    (pair.workspace / "notes.txt").write_text("high tide at noon\n" * 200)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(**SETTINGS))
    # the position of the script is read from the request, which is not told all steps: the turn ends at its limit
    events = await run_turn(gateway, engine=engine, max_steps=30)
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_MAX_STEPS
    assert pb.WARNING_CODE_HISTORY_SHORTENED in warnings(events)
    assert max(len(request.body) // BYTES_PER_TOKEN for request in pair.model.requests) < CONTEXT_TOKENS
    assert len(pair.model.requests) == 30
    pair.model.script = Script(steps=(Step(text="Fresh."),), context_tokens=CONTEXT_TOKENS)
    session_id = events[0].turn_started.session_id
    assert text_of(await run_turn(gateway, engine=engine, session_id=session_id)) == "Fresh."


async def test_a_prompt_that_ollama_cut_in_silence_is_told_and_marked(make_pair):
    """A model server that has less context than it was asked for says so by nothing but its count of tokens."""
    steps = (Step(text="I read it all.", tokens=Tokens(input=CONTEXT_TOKENS, output=4)),)
    pair = await make_pair(Script(steps=steps))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(**SETTINGS))
    events = await run_turn(gateway, input="w" * 9_000, engine="ollama")
    assert kinds(events) == ["turn_started", "text_delta", "warning", "step_finished", "turn_finished"]
    assert warnings(events) == [pb.WARNING_CODE_CONTEXT_EXCEEDED]
    pair.model.script = Script(steps=(Step(text="Short."),))
    assert warnings(await run_turn(gateway, input="short", engine="ollama")) == []
    await pair.costs(2)
    assert pair.query("SELECT context_exceeded FROM cost_log ORDER BY created_at") == [(1,), (0,)]
