"""Stops: what they refuse and end, that they last, and that nothing slips between a check and a stop."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2, error_details_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Refusal, Script, Step
from gateway_svc.errors import InvalidRequest, NotFound, Overloaded, SettingsError, Stopped, StoreUnavailable
from gateway_svc.servicer import status_of
from gateway_svc.stopping import kept as kept_module
from gateway_svc.stopping.stops import MAX_STOPS, Stops
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.requests import Requests
from gateway_svc.turns.turn import Turn
from tests.gateway_svc.house import open_house
from tests.gateway_svc.scripted_turns import House, Runner, until

SETTINGS = pb.SessionSettings(labels={"team": "a"})
AGENT = common_pb2.Software(name="helper")
LABEL = control_pb2.Label(key="team", value="a")
OF_THE_TURN: list[dict[str, Any]] = [
    {"everything": control_pb2.Everything()},
    {"principal": "ada"},
    {"agent": "helper"},
    {"engine": "one"},
    {"label": LABEL},
]
OF_OTHERS: list[dict[str, Any]] = [
    {"principal": "bob"},
    {"agent": "other"},
    {"engine": "two"},
    {"label": control_pb2.Label(key="team", value="b")},
    {"tool": "*"},
]


def asked(scope: dict[str, Any], **fields: Any) -> control_pb2.StopAgentsRequest:
    return control_pb2.StopAgentsRequest(**{"scope": control_pb2.StopScope(**scope), "reason": "a drill", **fields})


class StoppedHouse(House):
    """Turns that can be stopped, over a runner whose turns wait for ever unless they are let go."""

    def __init__(self, folder: Path) -> None:
        self.go = asyncio.Event()
        super().__init__(folder, Runner(work=self._work))
        self.stops = Stops(folder, self._record)
        self.controls: list[tuple[Any, dict[str, str]]] = []
        runners = {"one": Runner(work=self._work), "two": Runner("two")}
        requests = Requests(folder)
        self.turns = Turns(self.sessions, runners, "one", lambda state: None, status_of, requests, stops=self.stops)

    async def _record(self, kind: Any, **fields: str) -> None:
        self.controls.append((kind, fields))

    async def _work(self, turn: Turn) -> None:
        await self.go.wait()

    async def run_as_ada(self, **request: Any) -> list[pb.TurnEvent]:
        if not request.get("session_id"):
            request["new_session"] = SETTINGS
        asked = pb.RunTurnRequest(**{"input": "go", "agent": AGENT, **request})
        return [event async for event in self.turns.run(asked, owner="ada")]

    async def stop(self, scope: dict[str, Any], **fields: Any) -> control_pb2.StopAgentsResponse:
        return await self.stops.stop(asked(scope, **fields), "root")


def stop_named(events: list[pb.TurnEvent]) -> str:
    """The stop that ended a turn, by its status."""
    finished = events[-1].turn_finished
    assert finished.stop_reason == pb.STOP_REASON_FAILED
    assert finished.error.code == code_pb2.FAILED_PRECONDITION
    info = error_details_pb2.ErrorInfo()
    assert finished.error.details[0].Unpack(info)
    assert info.reason == "STOPPED"
    assert "a drill" in finished.error.message
    assert info.metadata["stop_id"] in finished.error.message
    return str(info.metadata["stop_id"])


@pytest.mark.parametrize("scope", OF_THE_TURN, ids=lambda scope: next(iter(scope)))
async def test_a_stop_refuses_new_turns_and_ends_those_that_run_or_wait(tmp_path, scope):
    house = StoppedHouse(tmp_path)
    session_id = (await house.turns.sessions.create(SETTINGS, "ada")).id
    running = asyncio.create_task(house.run_as_ada(session_id=session_id))
    queued = asyncio.create_task(house.run_as_ada(session_id=session_id))
    kept = asyncio.create_task(house.run_as_ada(keep_on_disconnect=True))
    await until(lambda: len(house.turns._tasks()) == 3 and house.turns.waiting == 1)
    kept.cancel()

    answer = await house.stop(scope)
    assert (answer.ended_turns, answer.still_running) == (3, 0)
    assert not house.turns._tasks(), "they have ended when the answer comes"
    assert {stop_named(await turn) for turn in (running, queued)} == {answer.stop.id}
    with pytest.raises(Stopped, match="a drill") as refused:
        await house.run_as_ada()
    assert refused.value.metadata == {"stop_id": answer.stop.id}
    with pytest.raises(Stopped):
        await house.run_as_ada(session_id=session_id)
    assert len((await house.sessions.list_page(10, None)).states) == 2, "a turn that is refused leaves no session"

    house.go.set()
    await house.stops.resume(control_pb2.ResumeRequest(stop_id=answer.stop.id, reason="over"), "root")
    assert (await house.run_as_ada())[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    stop, resume = house.controls
    assert [kind for kind, _ in house.controls] == [audit_pb2.CONTROL_KIND_STOP, audit_pb2.CONTROL_KIND_RESUME]
    assert stop[1] == {**resume[1], "reason": "a drill"}
    assert (stop[1]["principal"], stop[1]["stop_id"]) == ("root", answer.stop.id)
    assert house.stops.counts["turn_ended"] == 3


@pytest.mark.parametrize("scope", OF_OTHERS, ids=lambda scope: next(iter(scope)))
async def test_a_stop_of_something_else_leaves_a_turn_alone(tmp_path, scope):
    house = StoppedHouse(tmp_path)
    running = asyncio.create_task(house.run_as_ada())
    await until(house.turns._tasks)
    assert (await house.stop(scope)).ended_turns == 0
    house.go.set()
    for events in (await running, await house.run_as_ada()):
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED


async def test_a_turn_that_waits_is_judged_by_what_it_begins_with(tmp_path):
    """Labels and engine may have changed since it was taken."""
    house = StoppedHouse(tmp_path)
    session_id = (await house.turns.sessions.create(pb.SessionSettings(), "ada")).id
    first = asyncio.create_task(house.run_as_ada(session_id=session_id))
    second = asyncio.create_task(house.run_as_ada(session_id=session_id))
    await until(lambda: len(house.turns._tasks()) == 2)
    stop = (await house.stop({"label": LABEL})).stop
    update = pb.UpdateSessionRequest(session_id=session_id, settings=SETTINGS)
    update.update_mask.paths.append("labels")
    await house.turns.sessions.update(update)
    house.go.set()
    assert (await first)[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert stop_named(await second) == stop.id


async def test_a_turn_that_begins_at_the_moment_of_a_stop_is_refused_or_ended(tmp_path):
    """Whatever the order in which the event loop takes them: when the answer is there, nothing runs."""
    house = StoppedHouse(tmp_path)
    order = random.Random(18)
    for _ in range(20):
        turns = [asyncio.create_task(house.run_as_ada()) for _ in range(5)]
        for _ in range(order.randrange(12)):
            await asyncio.sleep(0)
        answer = await house.stop({"principal": "ada"})
        assert not house.turns._tasks()
        for turn in turns:
            await asyncio.wait([turn])
            error = turn.exception()
            named = error.metadata["stop_id"] if isinstance(error, Stopped) else stop_named(turn.result())
            assert named == answer.stop.id
        await house.stops.resume(control_pb2.ResumeRequest(stop_id=answer.stop.id, reason="over"), "root")


async def test_the_same_stop_twice_is_one_stop_and_lifting_it_twice_is_fine(tmp_path):
    stops = Stops(tmp_path)
    first, second = [(await stops.stop(asked({"engine": "one"}, reason=why), "root")).stop for why in ("a", "b")]
    assert first == second
    assert stops.in_force() == (first,)
    lift = control_pb2.ResumeRequest(stop_id=first.id, reason="over")
    for _ in range(2):
        await stops.resume(lift, "root")
    assert stops.in_force() == ()
    await Stops(tmp_path).resume(lift, "root")
    with pytest.raises(NotFound):
        await stops.resume(control_pb2.ResumeRequest(stop_id="nobody", reason="over"), "root")


async def test_a_stop_and_its_end_outlast_the_gateway(tmp_path):
    stops = Stops(tmp_path)
    made = [(await stops.stop(asked(scope), "root")).stop for scope in [*OF_THE_TURN, {"tool": "bash"}]]
    again = Stops(tmp_path)
    assert list(again.in_force()) == made
    assert again.detail() == "stops in force: 6, of everything"
    await again.resume(control_pb2.ResumeRequest(stop_id=made[0].id, reason="over"), "root")
    assert list(Stops(tmp_path).in_force()) == made[1:]


@pytest.mark.parametrize("spoil", ["cut", "empty", "other_version", "no_target", "newer_field", "list"])
async def test_a_file_of_stops_that_cannot_be_read_keeps_the_gateway_from_starting(tmp_path, spoil):
    await Stops(tmp_path).stop(asked({"engine": "one"}), "root")
    path = tmp_path / "stops.json"
    value = json.loads(path.read_text("utf-8"))
    if spoil == "other_version":
        value["version"] = 2
    elif spoil == "no_target":
        value["stops"][0]["scope"] = {}
    elif spoil == "newer_field":
        value["stops"][0]["until_ms"] = "1"
    elif spoil == "list":
        value = []
    text = json.dumps(value)
    path.write_text({"cut": text[: len(text) // 2], "empty": ""}.get(spoil, text), "utf-8")
    with pytest.raises(SettingsError, match=r"stops\.json"):
        Stops(tmp_path)


async def test_a_stop_that_cannot_be_written_holds_and_says_so_and_none_is_lifted_unwritten(tmp_path, monkeypatch):
    house = StoppedHouse(tmp_path)
    running = asyncio.create_task(house.run_as_ada())
    await until(house.turns._tasks)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(kept_module, "replace_file", full)
        with pytest.raises(StoreUnavailable, match="is in force until this gateway ends"):
            await house.stop({"engine": "one"})
        [stop] = house.stops.in_force()
        assert stop_named(await running) == stop.id
        with pytest.raises(StoreUnavailable):
            await house.stops.resume(control_pb2.ResumeRequest(stop_id=stop.id, reason="over"), "root")
    assert house.stops.in_force() == (stop,)
    assert (await house.stop({"engine": "one"})).stop == stop, "asked again, it is written"
    assert Stops(tmp_path).in_force() == (stop,)


async def test_the_caller_the_gateway_and_its_next_start_agree_where_the_folder_cannot_be_synced(tmp_path, monkeypatch):
    stops = Stops(tmp_path)

    def broken(folder: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(kept_module, "sync_folder", broken)
    with pytest.raises(StoreUnavailable, match="is in force"):
        await stops.stop(asked({"engine": "one"}), "root")
    [stop] = stops.in_force()
    assert Stops(tmp_path).in_force() == (stop,)
    await stops.resume(control_pb2.ResumeRequest(stop_id=stop.id, reason="over"), "root")
    assert stops.in_force() == Stops(tmp_path).in_force() == ()


async def test_gateways_on_one_folder_keep_each_other_s_stops(tmp_path):
    first, second = Stops(tmp_path), Stops(tmp_path)
    everything = (await first.stop(asked({"everything": {}}), "root")).stop
    tool = (await second.stop(asked({"tool": "bash"}), "root")).stop
    assert {stop.id for stop in Stops(tmp_path).in_force()} == {everything.id, tool.id}
    await second.resume(control_pb2.ResumeRequest(stop_id=tool.id, reason="over"), "root")
    assert Stops(tmp_path).in_force() == (everything,)
    await first.resume(control_pb2.ResumeRequest(stop_id=everything.id, reason="over"), "root")
    assert Stops(tmp_path).in_force() == ()


async def test_a_stop_of_a_scope_that_is_being_lifted_is_a_new_one(tmp_path):
    stops = Stops(tmp_path)
    stop = (await stops.stop(asked({"engine": "one"}), "root")).stop
    lift = control_pb2.ResumeRequest(stop_id=stop.id, reason="over")
    _, answer = await asyncio.gather(stops.resume(lift, "root"), stops.stop(asked({"engine": "one"}), "root"))
    assert stops.in_force() == (answer.stop,)
    assert Stops(tmp_path).in_force() == (answer.stop,)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (control_pb2.StopAgentsRequest(reason="r"), "scope.target"),
        (asked({"everything": control_pb2.Everything()}, reason=""), "reason"),
        (asked({"everything": control_pb2.Everything()}, reason=" "), "reason"),
        (asked({"everything": control_pb2.Everything()}, reason="é" * 129), "reason"),
        (asked({"principal": ""}), "scope.principal"),
        (asked({"principal": "x" * 129}), "scope.principal"),
        (asked({"agent": "x" * 65}), "scope.agent"),
        (asked({"engine": "x" * 65}), "scope.engine"),
        (asked({"tool": "x" * 129}), "scope.tool"),
        (asked({"label": control_pb2.Label(value="a")}), "scope.label.key"),
        (asked({"label": control_pb2.Label(key="a", value="x" * 257)}), "scope.label.value"),
    ],
    ids=str,
)
async def test_a_stop_that_does_not_say_what_or_why_is_refused_and_stops_nothing(tmp_path, request_, field):
    stops = Stops(tmp_path)
    with pytest.raises(InvalidRequest) as refused:
        await stops.stop(request_, "root")
    assert refused.value.field == field
    assert stops.in_force() == ()


async def test_the_number_of_stops_is_bounded():
    stops = Stops()
    for number in range(MAX_STOPS):
        await stops.stop(asked({"agent": str(number)}), "root")
    with pytest.raises(Overloaded):
        await stops.stop(asked({"agent": "one more"}), "root")
    await stops.stop(asked({"agent": "0"}), "root")
    await stops.stop(asked({"everything": {}}), "root")


async def test_an_engine_s_passing_fault_is_told_as_such_where_its_fallback_is_stopped(tmp_path):
    async with agents(tmp_path, Step(refuse=Refusal(status=429, message="slow down"))) as (house, stops):
        await stops.stop(asked({"engine": "openai"}), "root")
        settings = pb.SessionSettings(fallback=pb.EngineChoice(engine="openai", model="second"))
        assert (await house.fail(new_session=settings)).startswith("ENGINE_RATE_LIMITED: engine ollama")


SLEEP = Step(tool_calls=(Call(name="bash", arguments={"command": "echo $$ > pid; sleep 600"}),))


@asynccontextmanager
async def agents(folder: Path, *steps: Step) -> AsyncIterator[Any]:
    async with open_house(folder, Script(steps=steps), Script()) as house:
        stops = Stops(folder)
        runners, requests = house.agents, Requests(folder)
        house.turns = Turns(house.sessions, runners, "ollama", house.record_session, status_of, requests, stops=stops)
        yield house, stops


def assert_denied_by(row: audit_pb2.AuditRow, stop: control_pb2.Stop) -> None:
    decided = row.decision
    assert (row.outcome, decided.source) == (common_pb2.OUTCOME_DENIED, common_pb2.DECISION_SOURCE_RULE)
    assert (decided.verdict, decided.rule) == (common_pb2.VERDICT_DENIED, f"stop:{stop.id}")
    assert (decided.decided_by, decided.reason) == (stop.principal, "a drill")


async def test_a_tool_that_is_stopped_is_denied_and_the_turn_goes_on(tmp_path):
    read = Call(name="read", arguments={"path": "notes.txt"})
    async with agents(tmp_path, Step(tool_calls=(SLEEP.tool_calls[0], read)), Step(text="done")) as (house, stops):
        stop = (await stops.stop(asked({"tool": "ba*"}), "root")).stop
        events = await house.run()
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
        by_tool = {row.tool_name: row for row in house.calls}
        assert_denied_by(by_tool["bash"], stop)
        lifts = f'`gateway-svc resume {stop.id} --reason "…"` lifts it'
        assert by_tool["bash"].error == f"root has stopped tool=ba* (stop {stop.id}): {lifts}"
        assert by_tool["read"].outcome == common_pb2.OUTCOME_SUCCEEDED
        told = json.dumps([request.json for request in house.ollama.requests])
        assert f"stop {stop.id}): a drill" in told


async def test_a_running_call_of_a_tool_that_is_stopped_ends_and_its_turn_goes_on(tmp_path):
    async with agents(tmp_path, SLEEP, Step(text="done")) as (house, stops):
        turn = asyncio.create_task(house.run())
        await until((house.workspace / "pid").exists)
        answer = await stops.stop(asked({"tool": "bash"}), "root")
        assert (answer.ended_turns, answer.ended_tool_calls, answer.still_running) == (0, 1, 0)
        assert (await turn)[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
        [row] = house.calls
        assert (row.outcome, row.error) == (
            common_pb2.OUTCOME_CANCELLED,
            f"stopped by root: a drill (stop {answer.stop.id})",
        )
        assert row.decision.verdict == common_pb2.VERDICT_ALLOWED


async def test_calls_may_go_on_to_their_end_and_then_their_turn_ends(tmp_path):
    slow = Call(name="bash", arguments={"command": "touch begun; while [ ! -e go ]; do sleep 0.01; done"})
    async with agents(tmp_path, Step(tool_calls=(slow,)), Step(text="done")) as (house, stops):
        turn = asyncio.create_task(house.run())
        await until((house.workspace / "begun").exists)
        answer = await stops.stop(asked({"engine": "ollama"}, let_running_calls_end=True), "root")
        assert (answer.ended_turns, answer.still_running) == (0, 1)
        (house.workspace / "go").touch()
        assert stop_named(await turn) == answer.stop.id
        assert [row.outcome for row in house.calls] == [common_pb2.OUTCOME_SUCCEEDED]
        assert len(house.ollama.requests) == 1, "the model is not asked again"


@pytest.mark.parametrize(
    ("by_client", "by_gateway", "why"),
    [(False, True, "the gateway was ended during the call"), (True, False, "cancelled"), (True, True, "cancelled")],
)
async def test_a_call_that_is_cancelled_since_the_gateway_ends_says_so(tmp_path, by_client, by_gateway, why):
    async with agents(tmp_path, SLEEP) as (house, _):
        turn = asyncio.create_task(house.run())
        await until((house.workspace / "pid").exists)
        if by_client:
            house.turns.cancel(pb.CancelTurnRequest(turn_id=house.turns._kept.running()[0].turn_id))
        if by_gateway:
            await house.turns.drain(0)
        assert (await turn)[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
        [row] = house.calls
        assert (row.outcome, row.error) == (common_pb2.OUTCOME_CANCELLED, why)
