"""A turn whose engine is rate limited or down goes on with the session's fallback, and the rows say who did what."""

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Refusal, Script, Step
from gateway_svc.errors import EngineNotConfigured
from tests.gateway_svc.house import kinds, open_house, text_of

LOOK = Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),))
LIMITED = Step(refuse=Refusal(status=429, message="slow down"))
DOWN = Step(refuse=Refusal(status=503, message="no model is loaded"))
DIES = Step(text="I am about to say it.", cut_after=2)
FAILS = Step(text="I am about to say it.", error_after=2, error_status=500)
CUT = Step(refuse=Refusal(status=401, message="who are you"))
OTHER = Script(steps=(LOOK, Step(text="Done.")))
FALLBACK = pb.EngineChoice(engine="openai", model="second")
SETTINGS = pb.SessionSettings(fallback=FALLBACK)


@pytest.mark.parametrize(
    ("steps", "calls", "costs"),
    [
        ((LIMITED,), ["openai"], [("ollama", True), ("openai", False), ("openai", False)]),
        ((LOOK, DOWN), ["ollama"], [("ollama", False), ("ollama", True), ("openai", False)]),
        ((LOOK, DIES), ["ollama"], [("ollama", False), ("ollama", True), ("openai", False)]),
        ((LOOK, FAILS), ["ollama"], [("ollama", False), ("ollama", True), ("openai", False)]),
    ],
    ids=["at once", "between steps", "killed in an answer", "failed in an answer"],
)
async def test_a_turn_is_handed_over(tmp_path, steps, calls, costs):
    async with open_house(tmp_path, Script(steps=steps), OTHER) as house:
        events = await house.run(new_session=SETTINGS)
        [changed] = [event.engine_changed for event in events if event.HasField("engine_changed")]
        assert (changed.engine, changed.model) == ("openai", "second")
        assert text_of(events).removeprefix("I am") == "Done."
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
        assert events[-1].turn_finished.usage.requests == 3
        assert [row.engine for row in house.calls] == calls
        assert [(row.engine, row.HasField("error")) for row in house.costs] == costs
        assert {row.requested_model for row in house.costs if row.engine == "openai"} == {"second"}

        session_id = events[0].turn_accepted.session_id
        assert (await house.sessions.get(session_id)).settings.engine == "ollama"
        house.ollama.script = Script(steps=(Step(text="I am back."),))
        events = await house.run(session_id=session_id)
        assert text_of(events) == "I am back.", "the next turn begins with the session's own engine"


async def test_a_turn_keeps_its_step_limit_when_it_is_handed_over(tmp_path):
    endless = Script(steps=(LOOK.model_copy(update={"repeat": 50}),))
    async with open_house(tmp_path, Script(steps=(LOOK, LIMITED)), endless) as house:
        finished = (await house.run(new_session=SETTINGS, max_steps=5))[-1].turn_finished
        assert (finished.stop_reason, finished.usage.requests) == (pb.STOP_REASON_MAX_STEPS, 5)


async def test_a_fallback_that_fails_too_is_the_turns_error(tmp_path):
    async with open_house(tmp_path, Script(steps=(DOWN,)), Script(steps=(LIMITED,))) as house:
        error = await house.fail(new_session=SETTINGS)
        assert error.startswith("ENGINE_RATE_LIMITED: engine openai, model second")


async def test_what_somebody_has_to_mend_is_not_handed_over(tmp_path):
    async with open_house(tmp_path, Script(steps=(CUT,)), OTHER) as house:
        error = await house.fail(new_session=SETTINGS)
        assert error.startswith("ENGINE_REJECTED: ")
        assert "who are you" in error


async def test_a_fallback_stays_with_the_session(tmp_path):
    async with open_house(tmp_path, Script(steps=(DOWN,)), OTHER) as house:
        with pytest.raises(EngineNotConfigured, match="'nine' is not configured"):
            await house.run(new_session=pb.SessionSettings(fallback=pb.EngineChoice(engine="nine")))
        session_id = (await house.turns.sessions.create(SETTINGS)).id
        assert "engine_changed" in kinds(await house.run(session_id=session_id))
        assert (await house.sessions.get(session_id)).to_message().settings.fallback == FALLBACK
