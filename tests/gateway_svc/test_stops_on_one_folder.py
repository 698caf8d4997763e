"""Gateways that share a state directory: what is stopped, or lifted, at one is so at the others and after a start."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from onrecord.gateway.v1 import control_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import Stopped
from gateway_svc.stopping import stops as stops_module
from gateway_svc.stopping.stops import Stops
from service_kit.producing.stop import Subject
from tests.gateway_svc.scripted_turns import until
from tests.gateway_svc.test_stops import StoppedHouse, asked, stop_named

EVERYTHING = {"everything": control_pb2.Everything()}


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops_module, "LOOK_SECONDS", 0.02)


def lift(stop: control_pb2.Stop) -> control_pb2.ResumeRequest:
    return control_pb2.ResumeRequest(stop_id=stop.id, reason="over")


async def test_a_stop_that_one_gateway_lifted_is_not_written_again_by_another(tmp_path):
    first = Stops(tmp_path)
    lifted = (await first.stop(asked(EVERYTHING), "root")).stop
    second = Stops(tmp_path)
    assert second.in_force() == (lifted,)
    await first.resume(lift(lifted), "root")

    again = (await first.stop(asked(EVERYTHING), "root")).stop
    tool = (await second.stop(asked({"tool": "bash"}), "root")).stop
    kept = json.loads((tmp_path / "stops.json").read_text())
    assert {stop["id"] for stop in kept["stops"]} == {again.id, tool.id}
    assert kept["lifted"] == [lifted.id]
    assert {stop.id for stop in Stops(tmp_path).in_force()} == {again.id, tool.id}


async def test_a_stop_that_a_file_has_among_those_in_force_and_those_lifted_is_lifted(tmp_path):
    stop = (await Stops(tmp_path).stop(asked(EVERYTHING), "root")).stop
    path = tmp_path / "stops.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "lifted": [stop.id]}))

    again = Stops(tmp_path)
    assert again.in_force() == ()
    tool = (await again.stop(asked({"tool": "bash"}), "root")).stop
    assert [one["id"] for one in json.loads(path.read_text())["stops"]] == [tool.id]


@asynccontextmanager
async def following(*all_stops: Stops) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(stops.follow()) for stops in all_stops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_stop_at_one_gateway_ends_what_runs_at_another_until_it_is_lifted_at_either(tmp_path):
    house, first = StoppedHouse(tmp_path), Stops(tmp_path)
    running = asyncio.create_task(house.run_as_ada())
    await until(house.turns._tasks)
    async with following(house.stops, first):
        stop = (await first.stop(asked(EVERYTHING), "root")).stop
        assert stop_named(await running) == stop.id
        assert house.stops.in_force() == (stop,)
        assert not house.controls, "who made it has recorded it"
        await house.stops.resume(lift(stop), "root")
        await until(lambda: not first.in_force())
    assert Stops(tmp_path).in_force() == ()


@pytest.mark.parametrize("lifted", [0, 1])
async def test_what_two_gateways_stop_at_once_is_one_stop(tmp_path, lifted):
    """Neither knew of the other's; whichever is named, lifting it lifts what is stopped."""
    first, second = Stops(tmp_path), Stops(tmp_path)
    told = [(await stops.stop(asked(EVERYTHING), name)).stop for stops, name in ((first, "ada"), (second, "bob"))]
    ids = [one["id"] for one in json.loads((tmp_path / "stops.json").read_text())["stops"]]
    assert (told[0], len(set(ids))) == (told[1], 2)
    await first.look_at_file()
    assert first.by_scope() == second.by_scope() == (told[0],)
    assert first.detail() == "stops in force: 1, of everything"
    await first.resume(control_pb2.ResumeRequest(stop_id=ids[lifted], reason="over"), "root")
    await second.look_at_file()
    assert first.in_force() == second.in_force() == Stops(tmp_path).in_force() == ()
    await second.resume(control_pb2.ResumeRequest(stop_id=ids[1 - lifted], reason="over"), "root")


async def test_a_turn_that_begins_knows_what_another_gateway_has_just_stopped_and_lifted(tmp_path):
    house, first = StoppedHouse(tmp_path), Stops(tmp_path)
    house.go.set()
    stop = (await first.stop(asked(EVERYTHING), "root")).stop
    with pytest.raises(Stopped, match=stop.id):
        await house.run_as_ada()
    await first.resume(lift(stop), "root")
    assert (await house.run_as_ada())[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED


async def test_another_gateway_too_lets_calls_end_where_the_stop_does(tmp_path):
    first, second = Stops(tmp_path), Stops(tmp_path)
    turn = second.turn(Subject("ada"))
    go = asyncio.Event()

    async def run() -> None:
        with turn.call("bash") as call:
            call.runs = True
            await go.wait()
        await asyncio.Event().wait()

    second.watch(turn, running := asyncio.create_task(run()))
    await asyncio.sleep(0)
    await first.stop(asked(EVERYTHING, let_running_calls_end=True), "root")
    await second.look_at_file()
    await asyncio.sleep(0)
    assert second.in_force()
    assert not running.done()
    go.set()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_where_the_file_becomes_unreadable_the_last_stops_hold_and_health_says_so(tmp_path):
    first, second = Stops(tmp_path), Stops(tmp_path)
    tool = (await first.stop(asked({"tool": "bash"}), "root")).stop
    async with following(second):
        await until(second.in_force)
        path = tmp_path / "stops.json"
        good = path.read_text()
        path.write_text(good[:40])
        await until(lambda: "cannot be read" in second.detail())
        assert second.in_force() == (tool,)
        path.write_text(good)
        await until(lambda: "cannot be read" not in second.detail())
    assert second.in_force() == (tool,)
