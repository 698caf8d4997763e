"""Stops in the pair: every process is gone when the answer comes, and the record says who, why and when."""

import asyncio
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2, control_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import run_command
from demo.script import Call, Script, Step
from tests.e2e.conftest import SECONDS_TO_ARRIVE, Pair, error_of, run_turn, text_of
from tests.e2e.test_mcp import mcp_file
from tests.engines_claude.stage import is_running
from tests.support import claude_cli
from tests.support.claude_cli import Line, init, message, tool_use
from tests.support.processes import processes_of

BASHES = 50
IGNORES = "trap '' TERM INT HUP; echo $$ > pids/$$; while :; do sleep 600; done"
SLEEPS = "echo $$ > pids/$$; sleep 600"
EVERYTHING = control_pb2.StopScope(everything=control_pb2.Everything())
pytestmark = pytest.mark.long


def bash(command: str) -> Call:
    return Call(name="bash", arguments={"command": command})


def command(module: str, env: dict[str, str], *args: str) -> tuple[int, str, str]:
    """Runs a command: its exit code, output and errors."""
    done = run_command(module, env, *args)
    return done.returncode, done.stdout, done.stderr


async def until(holds: Any) -> None:
    async with asyncio.timeout(SECONDS_TO_ARRIVE * 2):
        while not holds():
            await asyncio.sleep(0.01)


async def control(pair: Pair, service: Any) -> "control_pb2_grpc.ControlServiceAsyncStub":
    return control_pb2_grpc.ControlServiceStub(await pair.channel(service.address))


async def controls(pair: Pair, count: int) -> list[audit_pb2.ControlRow]:
    questions = await pair.questions()
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while len(found := (await questions.ListControls(questions_pb2.ListControlsRequest())).controls) < count:
            await asyncio.sleep(0.02)
    return [record.control for record in reversed(found)]


async def test_fifty_commands_one_of_which_ignores_signals_are_gone_when_the_answer_comes(make_pair):
    calls = [bash(IGNORES), *(bash(SLEEPS) for _ in range(BASHES // 5 - 1))]
    pair = await make_pair(Script(steps=(Step(tool_calls=tuple(calls)),)))
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_BASH_SANDBOX="off_as_root", GATEWAY_MAX_PARALLEL_TOOLS="10")
    gateway, stub = await pair.gateway(service), await control(pair, service)
    (pair.workspace / "pids").mkdir()
    turns = [asyncio.create_task(run_turn(gateway)) for _ in range(5)]
    await until(lambda: len(list((pair.workspace / "pids").iterdir())) == BASHES)
    begun = [int(path.name) for path in (pair.workspace / "pids").iterdir()]
    assert all(map(is_running, begun))

    answer = await stub.StopAgents(control_pb2.StopAgentsRequest(scope=EVERYTHING, reason="a drill"))
    assert not any(map(is_running, begun))
    assert (answer.ended_turns, answer.still_running) == (5, 0)
    for events in await asyncio.gather(*turns):
        assert answer.stop.id in error_of(events).message
    assert {row.outcome for row in await pair.rows(BASHES)} == {common_pb2.OUTCOME_CANCELLED}
    [row] = await controls(pair, 1)
    assert (row.kind, row.scope, row.reason) == (audit_pb2.CONTROL_KIND_STOP, "everything", "a drill")
    assert (row.stop_id, row.principal) == (answer.stop.id, "")

    service.kill()  # right after the answer: it was on disk before
    again = pair.start_gateway()
    gateway, stub = await pair.gateway(again), await control(pair, again)
    assert list((await stub.ListStops(control_pb2.ListStopsRequest())).stops) == [answer.stop]
    with pytest.raises(grpc.aio.AioRpcError, match="a drill") as refused:
        await run_turn(gateway)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    again.kill()
    (pair.state_dir / "stops.json").write_text('{"version": 1, "st', "utf-8")
    code, _, told = command("gateway_svc", pair.gateway_env({}), "serve")
    assert code == 2
    assert "stops.json" in told


async def test_a_stop_at_one_of_two_gateways_on_a_state_directory_ends_what_the_other_runs(make_pair):
    pair = await make_pair(Script(steps=(Step(tool_calls=(bash(SLEEPS),)),)))
    pair.start_audit()
    first, second = (pair.start_gateway(GATEWAY_BASH_SANDBOX="off_as_root") for _ in range(2))
    gateway, stub, other = await pair.gateway(second), await control(pair, first), await control(pair, second)
    (pair.workspace / "pids").mkdir()
    running = asyncio.create_task(run_turn(gateway))
    await until(lambda: list((pair.workspace / "pids").iterdir()))
    [command_pid] = [int(path.name) for path in (pair.workspace / "pids").iterdir()]

    answer = await stub.StopAgents(control_pb2.StopAgentsRequest(scope=EVERYTHING, reason="a drill"))
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        assert answer.stop.id in error_of(await running).message
    assert not is_running(command_pid)
    await other.Resume(control_pb2.ResumeRequest(stop_id=answer.stop.id, reason="over"))
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while (await stub.ListStops(control_pb2.ListStopsRequest())).stops:
            await asyncio.sleep(0.05)
    rows = await controls(pair, 2)
    assert [row.kind for row in rows] == [audit_pb2.CONTROL_KIND_STOP, audit_pb2.CONTROL_KIND_RESUME]


async def test_calls_that_wait_for_an_answer_and_those_of_mcp_servers_are_reached(make_pair, tmp_path):
    slow = Call(name="t.sleep", arguments={"seconds": 600})
    steps = (Step(tool_calls=(bash("touch ran"), slow)), Step(text="Done."))
    pair = await make_pair(Script(steps=steps))
    pair.start_audit()
    service = pair.start_gateway(**mcp_file(tmp_path), GATEWAY_TOOLS="bash=ask")
    gateway, stub = await pair.gateway(service), await control(pair, service)
    events = []
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go"))
    async for event in turn:
        events.append(event)
        if sum(event.HasField("tool_call_started") for event in events) == 2:
            break
    stops = []
    for tool in ("bash", "t.*"):
        scope = control_pb2.StopScope(tool=tool)
        stops.append(await stub.StopAgents(control_pb2.StopAgentsRequest(scope=scope, reason="a drill")))
    events += [event async for event in turn]
    assert text_of(events) == "Done."
    by_tool = {row.tool_name: row for row in await pair.rows(2)}
    assert [(one.ended_turns, one.ended_tool_calls) for one in stops] == [(0, 1), (0, 1)], by_tool
    assert by_tool["bash"].outcome == common_pb2.OUTCOME_DENIED
    assert by_tool["bash"].decision.rule == f"stop:{stops[0].stop.id}"
    assert by_tool["t.sleep"].outcome == common_pb2.OUTCOME_CANCELLED
    assert not (pair.workspace / "ran").exists()


@pytest.mark.parametrize("scope", [{"engine": "claude"}, {"agent": "claude-code"}, {"tool": "Bash"}], ids=str)
async def test_the_program_of_claude_is_ended_with_all_that_it_started(make_pair, tmp_path, scope):
    call = tool_use("toolu_1", "Bash", {"command": "sleep 600"})
    ask: Line = {"do": "ask", "call": call}
    play = [init(), *message("msg_1", tools=[call]), ask, {"do": "spawn"}, {"do": "sleep", "seconds": 600}]
    plays = tmp_path / "claude"
    plays.mkdir()
    (plays / "play-0.json").write_text(json.dumps({"lines": play, "ignore_term": True}), "utf-8")
    program = Path(claude_cli.__file__)
    pair = await make_pair(Script())
    pair.start_audit()
    started = shlex.join([sys.executable, str(program), str(plays)])
    service = pair.start_gateway(GATEWAY_CLAUDE_COMMAND=started, GATEWAY_AUDIT_CLAUDE="on")
    gateway, stub = await pair.gateway(service), await control(pair, service)
    turn = asyncio.create_task(run_turn(gateway, engine="claude"))
    await until(lambda: "answered" in _text(plays / "journal.jsonl"))
    begun = processes_of(str(plays))
    assert begun
    request = control_pb2.StopAgentsRequest(scope=control_pb2.StopScope(**scope), reason="a drill")
    answer = await stub.StopAgents(request)
    assert not any(map(is_running, begun))
    assert answer.ended_turns == 1
    assert answer.stop.id in error_of(await turn).message
    [row] = await pair.rows(1)
    assert row.outcome == common_pb2.OUTCOME_CANCELLED


async def test_people_stop_list_and_lift_from_the_terminal(make_pair):
    pair = await make_pair(Script(steps=(Step(text="Done."),)))
    pair.start_audit()
    service = pair.start_gateway()
    at = ("--target", service.address)
    code, told, note = command("gateway_svc", {}, "stop", "--engine", "ollama", "--reason", "a drill", "--json", *at)
    stop_id = json.loads(told)["stop"]["id"]
    assert "it reached nothing that runs" in json.loads(note)["note"]
    assert {"ended_turns", "ended_tool_calls", "still_running"} < set(json.loads(told))
    assert code == 0
    code, told, _ = command("gateway_svc", {}, "stops", *at)
    assert (stop_id in told, "engine=ollama" in told, "a drill" in told) == (True, True, True)
    code, _, told = command("gateway_svc", {}, "run", "go", *at)
    assert code != 0
    assert f'a drill (`gateway-svc resume {stop_id} --reason "…"` lifts it)' in told
    assert command("gateway_svc", {}, "resume", stop_id[-8:], "--reason", "over", *at)[0] == 0
    assert text_of(await run_turn(await pair.gateway(service))) == "Done."
    assert command("gateway_svc", {}, "stop", "--reason", "what", *at)[0] == 2
    assert command("gateway_svc", {}, "resume", "nobody", "--reason", "over", *at)[0] != 0
    stop, lifted = await controls(pair, 2)
    assert (stop.kind, lifted.kind) == (audit_pb2.CONTROL_KIND_STOP, audit_pb2.CONTROL_KIND_RESUME)
    assert stop.stop_id == lifted.stop_id == stop_id


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""
