"""Settings that change in the middle of a session: what the next turn runs with, and what is kept."""

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Refusal, Script, Step
from gateway_svc.errors import Busy, EngineNotConfigured, InvalidRequest, NotFound
from gateway_svc.turns.turn import Turn
from tests.gateway_svc.house import MODEL, open_house
from tests.gateway_svc.house import House as RealHouse
from tests.gateway_svc.scripted_turns import House, Runner, until
from tests.support.conversations import held_elsewhere

ALL: dict[str, Any] = {
    "system_prompt": "be brief",
    "labels": {"team": "a", "user": "ada"},
    "max_cost_micros": 1000,
    "fallback": pb.EngineChoice(engine="two", model="m2"),
}


async def update(house: House | RealHouse, session_id: str, *paths: str, **settings: Any) -> pb.SessionSettings:
    request = pb.UpdateSessionRequest(
        session_id=session_id, settings=pb.SessionSettings(**settings), update_mask=FieldMask(paths=paths)
    )
    return (await house.turns.sessions.update(request)).settings


async def test_a_named_field_is_replaced_as_a_whole_or_taken_away_and_the_others_stay(tmp_path):
    house = House(tmp_path, Runner("one"), Runner("two"))
    session_id = (await house.turns.sessions.create(pb.SessionSettings(**ALL))).id
    now = await update(house, session_id, "labels", labels={"team": "b"}, system_prompt="is not named")
    expected = pb.SessionSettings(engine="one", model="m1", **(ALL | {"labels": {"team": "b"}}))
    assert now == expected
    for name in ("max_cost_micros", "fallback", "labels", "system_prompt"):
        now = await update(house, session_id, name)
        expected.ClearField(name)
        assert now == expected
    now = await update(house, session_id, "max_cost_micros", max_cost_micros=0)
    assert now.HasField("max_cost_micros"), "0 is a budget of nothing"
    assert (await House(tmp_path, Runner("one"), Runner("two")).sessions.get(session_id)).settings == now
    assert [row.revision for row in house.rows] == list(range(1, 8))
    assert dict(house.rows[1].labels) == {"team": "b"}
    assert dict(house.rows[-1].labels) == {}


async def test_an_engine_alone_takes_its_own_default_model(tmp_path):
    house = House(tmp_path, Runner("one"), Runner("two"))
    session_id = (await house.turns.sessions.create(pb.SessionSettings(engine="one", model="large"))).id
    for settings, model in (
        ({"engine": "one"}, "large"),
        ({"engine": "two"}, "m1"),
        ({"model": "small"}, "small"),
        ({"engine": "", "model": "tiny"}, "tiny"),
        ({"model": ""}, "m1"),
    ):
        assert (await update(house, session_id, *settings, **settings)).model == model


async def test_a_running_turn_goes_on_as_it_began_and_the_next_has_the_new_settings(tmp_path):
    """Nobody waits for the other, and what the turn saves at its end keeps the change."""
    hold, seen = asyncio.Event(), []

    async def work(turn: Turn) -> None:
        seen.append((turn.scope.engine, turn.system_prompt))
        await hold.wait()

    one, two = Runner("one", work), Runner("two", work)
    house = House(tmp_path, one, two)
    session_id = (await house.turns.sessions.create(pb.SessionSettings(system_prompt="be brief"))).id
    running = asyncio.create_task(house.run(input="first", session_id=session_id))
    await until(lambda: seen)
    waiting = asyncio.create_task(house.run(input="second", session_id=session_id))
    now = await update(house, session_id, "engine", "system_prompt", engine="two", system_prompt="be long")
    assert not running.done()
    assert (await house.sessions.get(session_id)).settings == now
    assert house.rows[-1].status == common_pb2.SESSION_STATUS_RUNNING
    hold.set()
    await asyncio.gather(running, waiting)
    assert seen == [("one", "be brief"), ("two", "be long")]
    assert (await house.sessions.get(session_id)).settings == now


async def test_changes_between_turns_that_follow_each_other_are_all_kept(tmp_path):
    house = House(tmp_path, Runner("one"))
    session_id = (await house.turns.sessions.create(pb.SessionSettings())).id
    turns = [asyncio.create_task(house.run(input="go", session_id=session_id)) for _ in range(5)]
    for number in range(50):
        assert (await update(house, session_id, "labels", labels={"n": str(number)})).labels["n"] == str(number)
        await asyncio.sleep(0)
    await asyncio.gather(*turns)
    state = await house.sessions.get(session_id)
    assert (state.turns, dict(state.settings.labels)) == (5, {"n": "49"})
    revisions = [row.revision for row in house.rows]
    assert revisions == sorted(set(revisions))


@pytest.mark.parametrize(
    ("paths", "settings", "error", "field"),
    [
        ([], {"model": "m2"}, InvalidRequest, "update_mask"),
        (["labels.team"], {}, InvalidRequest, "update_mask"),
        (["session_id"], {}, InvalidRequest, "update_mask"),
        (["*"], {}, InvalidRequest, "update_mask"),
        (["model", ""], {"model": "m2"}, InvalidRequest, "update_mask"),
        (["max_cost_micros"], {"max_cost_micros": -1}, InvalidRequest, "settings.max_cost_micros"),
        (["labels"], {"labels": {"": "v"}}, InvalidRequest, "settings.labels"),
        (["fallback"], {"fallback": pb.EngineChoice()}, InvalidRequest, "settings.fallback.engine"),
        (["shadows"], {"shadows": [pb.EngineChoice(engine="one")]}, InvalidRequest, "settings.shadows"),
        (["engine"], {"engine": "nine"}, EngineNotConfigured, ""),
    ],
)
async def test_what_cannot_be_had_changes_nothing(tmp_path, paths, settings, error, field):
    house = House(tmp_path, Runner("one"))
    session_id = (await house.turns.sessions.create(pb.SessionSettings(labels={"team": "a"}))).id
    before = await house.sessions.get(session_id)
    with pytest.raises(error) as raised:
        await update(house, session_id, *paths, **settings)
    assert getattr(raised.value, "field", "") == field
    assert (await house.sessions.get(session_id)) == before
    assert len(house.rows) == 1


async def test_a_session_of_others_is_not_known_and_one_that_another_gateway_holds_is_busy(tmp_path):
    house = House(tmp_path, Runner("one"))
    session_id = (await house.turns.sessions.create(pb.SessionSettings(), owner="ada")).id
    request = pb.UpdateSessionRequest(session_id=session_id, update_mask=FieldMask(paths=["labels"]))
    with pytest.raises(NotFound) as unknown:
        await house.turns.sessions.update(request, "bob")
    assert (unknown.value.resource, unknown.value.id) == ("session", session_id)
    assert (await house.turns.sessions.update(request, "ada")).owner == "ada"
    async with held_elsewhere(tmp_path, session_id):
        with pytest.raises(Busy):
            await house.turns.sessions.update(request, "ada")
    assert (await house.turns.sessions.update(request, "ada")).revision == 3


async def test_shadows_a_fallback_and_a_budget_come_and_go(tmp_path):
    answer = Step(text="fine")
    async with open_house(tmp_path, Script(steps=(answer,)), Script(steps=(answer,))) as house:
        started = await house.run(new_session=pb.SessionSettings())
        session_id = started[0].turn_accepted.session_id

        async def shadows_of_a_turn() -> int:
            before = sum(row.shadow for row in house.costs)
            turn = await house.run(session_id=session_id)
            assert turn[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
            await until(lambda: not house.turns._shadows._tasks)
            return sum(row.shadow for row in house.costs) - before

        assert await shadows_of_a_turn() == 0
        await update(house, session_id, "shadows", shadows=[pb.EngineChoice(engine="openai")])
        assert await shadows_of_a_turn() == 1
        await update(house, session_id, "shadows")
        assert await shadows_of_a_turn() == 0

        await update(house, session_id, "max_cost_micros", max_cost_micros=0)
        stopped = await house.run(session_id=session_id)
        assert stopped[-1].turn_finished.stop_reason == pb.STOP_REASON_MAX_COST
        await update(house, session_id, "max_cost_micros")
        assert await shadows_of_a_turn() == 0

        house.ollama.script = Script(steps=(Step(refuse=Refusal(status=503, message="down")),))
        await update(house, session_id, "fallback", fallback=pb.EngineChoice(engine="openai"))
        handed_over = await house.run(session_id=session_id)
        [changed] = [event.engine_changed for event in handed_over if event.HasField("engine_changed")]
        assert (changed.engine, changed.model) == ("openai", MODEL)
