"""Shadows run a turn again with tools that do not run, and never touch the turn that works."""

import asyncio

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Refusal, Script, Step, Tokens
from gateway_svc.errors import EngineNotConfigured, InvalidRequest
from gateway_svc.turns.shadows import MAX_RUNNING
from tests.gateway_svc.house import House, open_house, text_of
from tests.gateway_svc.scripted_turns import Runner

TOKENS = Tokens(input=1_000, output=100)
SHADOW_MICROS = 2 * 210
"""What gpt-4o-mini's list price says of two such requests."""
READ = Call(name="read", arguments={"path": "notes.txt"})
TOUCH = Call(name="bash", arguments={"command": "touch made-by-the-shadow"})
PRIMARY = Script(steps=(Step(tool_calls=(READ,), tokens=TOKENS), Step(text="Done.", tokens=TOKENS)))
OTHER = Script(
    steps=(
        Step(tool_calls=(READ, READ, TOUCH, Call(name="nope")), tokens=TOKENS),
        Step(text="Also done.", tokens=TOKENS),
    )
)
SHADOW = pb.EngineChoice(engine="openai")
SHADOWED = pb.SessionSettings(shadows=[SHADOW])


async def shadows_end(house: House) -> None:
    async with asyncio.timeout(30):
        while house.turns._shadows._tasks:
            await asyncio.sleep(0.01)


async def test_a_shadow_runs_nothing_is_told_what_the_turn_was_told_and_leaves_marked_rows(tmp_path):
    async with open_house(tmp_path, PRIMARY, OTHER) as house:
        events = await house.run(new_session=SHADOWED)
        assert text_of(events) == "Done."
        await shadows_end(house)
        accepted = events[0].turn_accepted
        rows = [row for row in house.calls if row.shadow]
        assert sorted((row.tool_name, row.outcome) for row in rows) == [
            ("bash", common_pb2.OUTCOME_DRY_RUN),
            ("read", common_pb2.OUTCOME_DRY_RUN),
            ("read", common_pb2.OUTCOME_DRY_RUN),
            ("unknown", common_pb2.OUTCOME_INVALID_CALL),
        ]
        assert {(row.session_id, row.turn_id, row.engine) for row in rows} == {
            (accepted.session_id, accepted.turn_id, "openai")
        }
        assert [row.outcome for row in house.calls if not row.shadow] == [common_pb2.OUTCOME_SUCCEEDED]
        assert not (house.workspace / "made-by-the-shadow").exists()
        messages = house.openai.requests[-1].json["messages"]
        told = [message["content"] for message in messages if message["role"] == "tool"]
        assert [("high tide" in text, "dry run" in text) for text in told[:3]] == [
            (True, False),
            (True, False),
            (False, True),
        ], "a call that the turn made too is told the turn's result"

        assert [cost.shadow for cost in house.costs] == [False, False, True, True]
        session = (await house.sessions.get(accepted.session_id)).to_message()
        assert session.shadow_usage.known_cost_micros == sum(cost.cost_micros for cost in house.costs) == SHADOW_MICROS
        assert (session.usage.requests, session.tool_calls, session.usage.known_cost_micros) == (2, 1, 0)
        await house.run(session_id=accepted.session_id)
        assert "Also done" not in str(house.ollama.requests[-1].json), "nothing of it is in the conversation"


async def test_a_shadow_of_a_later_turn_begins_where_that_turn_began(tmp_path):
    async with open_house(tmp_path, PRIMARY, OTHER) as house:
        session_id = (await house.run(new_session=SHADOWED))[0].turn_accepted.session_id
        await shadows_end(house)
        await house.run(session_id=session_id, input="and tomorrow?")
        await shadows_end(house)
        first = house.openai.requests[2].json["messages"]
        assert [message["content"] for message in first if message["role"] != "tool"] == [
            *("go", None, "Done.", "and tomorrow?")
        ]


async def test_a_shadow_that_fails_or_hangs_delays_nothing_and_ends_with_the_gateway(tmp_path):
    async with open_house(tmp_path, PRIMARY, Script(steps=(Step(refuse=Refusal(status=400)),))) as house:
        session_id = (await house.run(new_session=SHADOWED))[0].turn_accepted.session_id
        await shadows_end(house)
        house.openai.script = Script(steps=(Step(text="slow", delay_ms=60_000),))
        for _ in range(MAX_RUNNING + 3):
            events = await house.run(session_id=session_id)
            assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
        await house.openai.received(1 + MAX_RUNNING)
        await house.turns.cancel_all()
        errors = [cost.error for cost in house.costs if cost.shadow]
        assert len(errors) == 1 + MAX_RUNNING, "those beyond the bound were left out"
        assert errors[1:] == ["cancelled"] * MAX_RUNNING


async def test_a_turn_that_fails_or_is_cancelled_has_no_shadow(tmp_path):
    async with open_house(tmp_path, Script(steps=(Step(text="slow", delay_ms=60_000),)), OTHER) as house:
        running = asyncio.create_task(house.run(new_session=SHADOWED))
        await house.ollama.received(1)
        await house.turns.cancel_all()
        assert (await running)[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
        assert not house.turns._shadows._tasks


async def test_shadows_spend_from_the_sessions_budget(tmp_path):
    async with open_house(tmp_path, PRIMARY, OTHER) as house:
        session_id = (await house.run(new_session=pb.SessionSettings(shadows=[SHADOW], max_cost_micros=210)))[
            0
        ].turn_accepted.session_id
        await shadows_end(house)
        assert sum(cost.cost_micros for cost in house.costs) == 210, "the shadow stopped after one step"
        events = await house.run(session_id=session_id)
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_MAX_COST


async def test_a_shadow_and_the_sessions_next_turn_spend_from_one_budget(tmp_path):
    """Each sees before its own next step what the other has spent, so that each is late by one step at most."""
    endless = Script(steps=(Step(tool_calls=(READ,), tokens=TOKENS, repeat=1_000, delay_ms=20),))
    async with open_house(tmp_path, PRIMARY, endless) as house:
        first = await house.run(new_session=pb.SessionSettings(shadows=[SHADOW], max_cost_micros=2_100))
        events = await house.run(
            session_id=first[0].turn_accepted.session_id,
            engine="openai",
            model="gpt-4o-mini",
        )
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_MAX_COST
        await shadows_end(house)
        costs = {
            shadow: sum(cost.cost_micros for cost in house.costs if cost.shadow == shadow) for shadow in (False, True)
        }
        assert min(costs.values()) > 0, "both ran"
        assert 2_100 <= sum(costs.values()) <= 2_100 + 210, "the last steps began side by side"
        state = await house.sessions.get(first[0].turn_accepted.session_id)
        assert (state.totals.known_cost_micros, state.shadow_totals.known_cost_micros) == (costs[False], costs[True])


async def test_an_engine_with_tools_of_its_own_and_too_many_shadows_are_refused(tmp_path):
    async with open_house(tmp_path, PRIMARY, OTHER) as house:
        house.agents["claude"] = Runner("claude")  # type: ignore[assignment] # the turns have the same dictionary
        for engines, error, said in (
            (["claude"], InvalidRequest, "brings its own tools"),
            (["openai"] * 5, InvalidRequest, "at most 4"),
            (["nine"], EngineNotConfigured, "is not configured"),
        ):
            shadows = [pb.EngineChoice(engine=name) for name in engines]
            with pytest.raises(error, match=said):
                await house.run(new_session=pb.SessionSettings(shadows=shadows))
