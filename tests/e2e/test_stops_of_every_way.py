"""Each scope of a stop against each way in which a tool can run: before, under way, and after a restart.

The way of applications that record by themselves, and of other agents by OpenTelemetry, is not here: the gateway runs
nothing of theirs.
"""

import os
import signal
from typing import Any

import grpc
import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.script import Page, Script, Step
from tests.e2e.conftest import error_of
from tests.e2e.every_way import OF_TOOLS, OF_TURNS, SLOW, WAYS, Stage, named, refused_by, says
from tests.e2e.test_stops import EVERYTHING
from tests.engines_claude.stage import is_running

pytestmark = pytest.mark.long


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
async def stage(request, make_pair, tmp_path):
    pages = {SLOW: Page(delay_ms=600_000)}
    async with ModelServer(Script(steps=(Step(delay_ms=600_000),), pages=pages)) as slow:
        pair = await make_pair(Script())
        pair.start_audit()
        stage = Stage(pair, slow, request.param, tmp_path)
        yield stage
        stage.begun()
        for pid in filter(is_running, stage.started):  # of a test that failed
            os.kill(pid, signal.SIGKILL)


async def test_a_stop_reaches_every_way_in_which_a_tool_runs(stage):
    service = await stage.start()
    # What holds for one scope between workers holds for each: a stop is sent as it is.
    names = OF_TURNS if stage.workers == 1 else ("everything", "openai")
    for scope_name, scope in ((name, OF_TURNS[name]) for name in names):
        of = {
            name
            for name, way in WAYS.items()
            if scope_name not in ("ollama", "openai", "claude") or way.runs_on == scope_name
        }
        stage.begun()
        # Bob's turn waits for its model, on an engine and for a team and an agent of its own.
        asked = len(stage.slow.requests)
        other = await stage.run("loop", stage.bob, agent=None, new_session=pb.SessionSettings(engine="openai"))
        await stage.until(lambda: len(stage.slow.requests) > asked, "Bob's model")  # noqa: B023 - awaited at once
        turns = {name: await stage.begin(name) for name in WAYS if name in of}
        if "queued" in turns:
            turns["ahead"] = stage.queued_behind
        pids = stage.begun()
        answer = await stage.stop(scope)
        assert not any(map(is_running, pids)), scope_name
        spared = scope_name not in ("everything", "openai")
        assert (answer.ended_turns, answer.still_running) == (len(turns) + (not spared), 0), scope_name
        assert other.task.done() is not spared or not spared
        ended: set[str] = set()
        rows = await stage.rows(turns.values())
        for name, turn in turns.items():
            await turn.task
            if name != "shadow":
                assert named(error_of(turn.events)) == answer.stop.id, (scope_name, name)
            told = {says(row, answer.stop) for row in rows.get(turn.turn_id, ())}
            expected = {"asks": {"refused"}, "parallel": {"ended", "refused"}, "queued": set(), "shadow": set()}
            assert told == expected.get(name, {"ended"}), (scope_name, name)
            ended |= told
        # Before: nothing of it begins.
        for name in of:
            if name == "shadow" and scope_name == "openai":
                asked = len(stage.slow.requests)
                turn = await stage.run(name)
                await turn.task
                assert turn.events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
                assert len(stage.slow.requests) == asked, "its shadow does not begin"
            elif name == "fallback" and scope_name == "ollama":
                turn = await stage.run(name)
                await turn.task
                assert error_of(turn.events).code == grpc.StatusCode.UNAVAILABLE.value[0], "of the engine that is down"
            else:
                assert await refused_by(stage.run, name) == answer.stop.id, (scope_name, name)
        assert stage.begun() == []
        other.task.cancel()
        await stage.resume([answer.stop])

    # One of each, for what nothing else is of; after a restart each refuses its own, and no other's.
    own: dict[str, tuple[control_pb2.StopScope, dict[str, Any]]] = {
        "principal": (control_pb2.StopScope(principal="bob"), {"ends": "bob"}),
        "agent": (control_pb2.StopScope(agent="other"), {"agent": common_pb2.Software(name="other")}),
        "engine": (control_pb2.StopScope(engine="openai"), {"new_session": pb.SessionSettings(engine="openai")}),
        "label": (
            control_pb2.StopScope(label=control_pb2.Label(key="team", value="b")),
            {"new_session": pb.SessionSettings(labels={"team": "b"})},
        ),
    }
    stops = {name: (await stage.stop(scope)).stop for name, (scope, _) in own.items()}
    service.kill()
    service = await stage.start()
    for name, (_, request) in own.items():
        fields = {key: stage.bob if value == "bob" else value for key, value in request.items()}
        for _ in range(4):  # over connections that lead to different workers
            assert await refused_by(stage.run, "shadow", **fields) == stops[name].id
    turn = await stage.run("shadow")
    await turn.task
    assert turn.events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    everything = (await stage.stop(EVERYTHING)).stop
    service.kill()
    await stage.start()
    for name in WAYS:
        assert await refused_by(stage.run, name) == everything.id


async def test_a_stop_of_tools_reaches_every_way_in_which_they_run_and_no_other(stage):
    service = await stage.start()
    of_tools = {name: way for name, way in WAYS.items() if way.tools}
    turns = {name: await stage.begin(name) for name in of_tools}
    pids = stage.begun()
    stops: dict[str, control_pb2.Stop] = {}
    for pattern in OF_TOOLS:
        answer = await stage.stop(control_pb2.StopScope(tool=pattern))
        assert answer.still_running == 0
        for tool in {tool for way in of_tools.values() for tool in way.tools}:
            if tool.startswith(pattern.rstrip("*.")):
                stops[tool] = answer.stop
        for name, turn in turns.items():
            if set(turn.way.tools) & stops.keys():
                await turn.task
                reason = turn.events[-1].turn_finished.stop_reason
                goes_on = pb.STOP_REASON_FAILED if name == "claude" else pb.STOP_REASON_COMPLETED
                assert reason == goes_on, (pattern, name)
            else:
                assert not turn.task.done(), (pattern, name)
    assert stops.keys() == {"bash", "t.sleep", "webfetch", "write", "Bash"}
    assert not any(map(is_running, pids))
    rows = await stage.rows(turns.values())
    for name, turn in turns.items():
        told = {says(row, stops[row.tool_name]) for row in rows[turn.turn_id]}
        assert told == {"asks": {"refused"}, "parallel": {"ended", "refused"}}.get(name, {"ended"}), name

    stage.play(goes_on=True)
    for restarted in (False, True):
        if restarted:
            service.kill()
            await stage.start()
        turns = {}
        for name in of_tools:
            turn = turns[name] = await stage.run(name)
            await turn.task
            assert turn.events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED, name
        rows = await stage.rows(turns.values())
        for name, turn in turns.items():
            assert {says(row, stops[row.tool_name]) for row in rows[turn.turn_id]} == {"refused"}, name
    assert not list(stage.pids.iterdir())
    assert not (stage.pair.workspace / "made.txt").exists()
