"""Stops of gateways that share sessions: what is stopped at one is stopped at all, and told once."""

import asyncio
import os
import signal
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.gateway.v1 import control_pb2, control_pb2_grpc, gateway_pb2_grpc

from demo.processes import Service
from demo.script import Call, Script, Step
from tests.e2e.conftest import SECONDS_TO_ARRIVE, Pair, error_of, run_turn, text_of
from tests.e2e.test_shared_sessions import WORK, begin, start
from tests.engines_claude.stage import is_running
from tests.support.postgres import *  # noqa: F403 - fixtures

pytestmark = [pytest.mark.postgres, pytest.mark.long]

EVERYTHING = control_pb2.StopScope(everything=control_pb2.Everything())
SLEEPS = Step(tool_calls=(Call(name="bash", arguments={"command": "echo $$ > pid; echo ran > ran.log; sleep 600"}),))


def asked(scope: control_pb2.StopScope = EVERYTHING, **fields: Any) -> control_pb2.StopAgentsRequest:
    return control_pb2.StopAgentsRequest(scope=scope, reason="a drill", **fields)


class End:
    """A gateway, as one that calls it has it."""

    def __init__(self, service: Service, channel: grpc.aio.Channel) -> None:
        self.service = service
        self.gateway = gateway_pb2_grpc.GatewayServiceStub(channel)
        self.control = control_pb2_grpc.ControlServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    @classmethod
    async def of(cls, pair: Pair, url: str, name: str, **env: str) -> "End":
        service = start(pair, url, name, GATEWAY_BASH_SANDBOX="off_as_root", **env)
        return cls(service, await pair.channel(service.address))

    async def stops(self) -> list[control_pb2.Stop]:
        return list((await self.control.ListStops(control_pb2.ListStopsRequest())).stops)

    async def refusal(self) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await run_turn(self.gateway)
        return refused.value


async def until(holds: Any) -> None:
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_what_is_stopped_at_one_gateway_is_ended_refused_and_listed_at_all_and_recorded_once(
    make_pair, postgres_database
):
    pair = await make_pair(Script(steps=(SLEEPS,), check=False))
    pair.start_audit()
    one, two = [await End.of(pair, postgres_database, name) for name in ("one", "two")]
    call, _ = await begin(pair, one.gateway)
    pid = int((pair.workspace / "pid").read_text())
    answer = await two.control.StopAgents(asked())
    assert not is_running(pid), "it is gone when the other gateway's answer comes"
    assert (answer.ended_turns, answer.still_running) == (1, 0)
    assert answer.stop.id in error_of([event async for event in call]).message
    three = await End.of(pair, postgres_database, "three")
    for end in (one, two, three):
        assert await end.stops() == [answer.stop]
        assert (await end.refusal()).code() == grpc.StatusCode.FAILED_PRECONDITION
    for end in (one, two, three):
        await end.control.Resume(control_pb2.ResumeRequest(stop_id=answer.stop.id, reason="over"))
        assert await end.stops() == []
    three.service.kill()
    four = await End.of(pair, postgres_database, "three")
    assert await four.stops() == [], "it is lifted for those that start later too"
    questions = await pair.questions()
    found = (await questions.ListControls(questions_pb2.ListControlsRequest())).controls
    kinds = [record.control.kind for record in reversed(found)]
    assert kinds == [audit_pb2.CONTROL_KIND_STOP, audit_pb2.CONTROL_KIND_RESUME]


async def test_what_two_gateways_stop_at_once_is_one_stop(make_pair, postgres_database):
    pair = await make_pair(WORK)
    pair.start_audit()
    ends = [await End.of(pair, postgres_database, name) for name in ("one", "two")]
    answers = await asyncio.gather(*(end.control.StopAgents(asked()) for end in ends))

    async def is_one() -> bool:
        one, other = [await end.stops() for end in ends]
        return len(one) == 1 and one == other

    await until(is_one)
    await ends[0].control.Resume(control_pb2.ResumeRequest(stop_id=answers[1].stop.id, reason="over"))
    assert [await end.stops() for end in ends] == [[], []]


async def test_a_stop_reaches_a_gateway_that_nobody_tells(make_pair, postgres_database, postgres_server):
    """Its connection for notifications is away: it looks by itself."""
    pair = await make_pair(Script(steps=(SLEEPS,), check=False))
    one, two = [await End.of(pair, postgres_database, name) for name in ("one", "two")]
    call, _ = await begin(pair, one.gateway)
    os.kill(two.service.pid, signal.SIGSTOP)  # as if it had died in the act: the stop is in the database alone
    stop = control_pb2.Stop(id="by-hand", scope=EVERYTHING, reason="a drill", at_ms=1)
    name = postgres_database.rsplit("/", 1)[1]
    row = f"INSERT INTO gateway_stops VALUES ('by-hand', '\\x{stop.SerializeToString().hex()}', false)"
    try:
        postgres_server.execute(row, name)
        assert "by-hand" in error_of([event async for event in call]).message
    finally:
        os.kill(two.service.pid, signal.SIGCONT)
    await two.control.Resume(control_pb2.ResumeRequest(stop_id="by-hand", reason="over"))
    assert await one.stops() == await two.stops() == []


async def test_a_stop_that_this_version_cannot_read_is_not_taken_for_none(
    make_pair, postgres_database, postgres_server
):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    one = await End.of(pair, postgres_database, "one")
    assert text_of(await run_turn(one.gateway)) == "Done."
    name = postgres_database.rsplit("/", 1)[1]
    postgres_server.execute("INSERT INTO gateway_stops VALUES ('later', '', false)", name)
    two = await End.of(pair, postgres_database, "two")
    assert (await two.refusal()).code() == grpc.StatusCode.UNAVAILABLE

    async def is_told() -> bool:
        trailers = one.health.Check(health_pb2.HealthCheckRequest())
        await trailers
        return "cannot be read" in str(await trailers.trailing_metadata()) + one.service.stderr_text()

    await until(is_told)
    assert text_of(await run_turn(one.gateway)) == "Done.", "what it knew last holds"
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await two.stops()
    assert unknown.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_stops_of_a_gateway_alone_hold_when_it_comes_to_share(make_pair, postgres_database):
    pair = await make_pair(WORK)
    alone = pair.start_gateway(GATEWAY_STATE_DIR=str(pair.folder / "one"))
    control = control_pb2_grpc.ControlServiceStub(await pair.channel(alone.address))
    stop = (await control.StopAgents(asked())).stop
    alone.kill()
    one, two = [await End.of(pair, postgres_database, name) for name in ("one", "two")]

    async def is_shared() -> bool:
        return await two.stops() == [stop]

    await until(is_shared)
    await two.control.Resume(control_pb2.ResumeRequest(stop_id=stop.id, reason="over"))
    one.service.kill()
    again = await End.of(pair, postgres_database, "one")
    assert await again.stops() == []
