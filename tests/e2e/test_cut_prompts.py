"""A model server that has less context than it was asked for says so by nothing but its count of tokens."""

from itertools import groupby

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Script, Step, Tokens
from tests.e2e.conftest import kinds, run_turn

CONTEXT_TOKENS = 4_096


@pytest.mark.long
async def test_a_prompt_that_ollama_cut_in_silence_is_told_and_marked(make_pair):
    steps = (Step(text="I read it all.", tokens=Tokens(input=CONTEXT_TOKENS, output=4)),)
    pair = await make_pair(Script(steps=steps))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_OLLAMA_NUM_CTX=str(CONTEXT_TOKENS)))
    events = await run_turn(gateway, input="w" * 9_000, engine="ollama")
    told = [kind for kind, _ in groupby(kinds(events))]  # text comes in as many pieces as the machine makes of it
    assert told == ["turn_accepted", "turn_started", "text_delta", "warning", "step_finished", "turn_finished"]
    assert [event.warning.code for event in events if event.HasField("warning")] == [pb.WARNING_CODE_CONTEXT_EXCEEDED]
    pair.model.script = Script(steps=(Step(text="Short."),))
    assert "warning" not in kinds(await run_turn(gateway, input="short", engine="ollama"))
    await pair.costs(2)
    assert pair.query("SELECT context_exceeded FROM cost_log ORDER BY created_at, id") == [(1,), (0,)]
