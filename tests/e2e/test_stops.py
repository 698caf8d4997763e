"""Stops in the pair: every process is gone when the answer comes, and the record says who, why and when."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2, control_pb2_grpc

from demo.processes import run_command
from demo.script import Call, Script, Step
from tests.e2e.conftest import SECONDS_TO_ARRIVE, Pair, error_of, run_turn
from tests.engines_claude.stage import is_running

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


async def test_fifty_commands_one_of_which_ignores_signals_are_gone_when_the_answer_comes(make_pair, record_property):
    calls = [bash(IGNORES), *(bash(SLEEPS) for _ in range(BASHES // 5 - 1))]
    pair = await make_pair(Script(steps=(Step(tool_calls=tuple(calls)),)))
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_BASH_SANDBOX="off", GATEWAY_MAX_PARALLEL_TOOLS="10")
    gateway, stub = await pair.gateway(service), await control(pair, service)
    (pair.workspace / "pids").mkdir()
    turns = [asyncio.create_task(run_turn(gateway)) for _ in range(5)]
    await until(lambda: len(list((pair.workspace / "pids").iterdir())) == BASHES)
    begun = [int(path.name) for path in (pair.workspace / "pids").iterdir()]
    assert all(map(is_running, begun))

    started = time.monotonic()
    answer = await stub.StopAgents(control_pb2.StopAgentsRequest(scope=EVERYTHING, reason="a drill"))
    record_property("seconds", time.monotonic() - started)
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
    (pair.state_dir / "stops.json").write_text('{"version": 1, "st')
    code, _, told = command("gateway_svc", pair.gateway_env({}), "serve")
    assert code == 2
    assert "stops.json" in told
