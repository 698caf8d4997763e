"""How soon a stop at one gateway has ended a tool that runs at another, with which it shares sessions.

The tool is a command that sleeps. From StopAgents to the end of its process, and to the last event of its turn.
"""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
from onrecord.gateway.v1 import control_pb2, control_pb2_grpc, gateway_pb2, gateway_pb2_grpc

from bench.figures import Figure, Target, percentile
from bench.postgres.turns import start_gateway
from bench.services import model_server
from demo.postgres import PostgresServer
from recording.channel.options import CLIENT_OPTIONS

TARGET = Target(max_ours=2.0)
_SLEEP_SECONDS = "611.7"
"""By which the process is known."""
_SCRIPT = {
    "check": False,
    "steps": [{"tool_calls": [{"name": "bash", "arguments": {"command": f"sleep {_SLEEP_SECONDS}"}}]}],
}
_EVERYTHING = control_pb2.StopScope(everything=control_pb2.Everything())
_PAUSE_SECONDS = 0.005


def measure(place: Path, server: PostgresServer, *, short: bool) -> list[Figure]:
    """The figures of one stop after the other, each of which is lifted before the next."""
    with ExitStack() as stack:
        url = stack.enter_context(model_server(place, _SCRIPT))
        sessions = server.create_database("stopped")
        runs, told = (
            stack.enter_context(start_gateway(place / name, url, GATEWAY_SESSIONS=sessions))
            for name in ("runs", "told")
        )
        gone, heard = asyncio.run(_stops(runs.address, told.address, 10 if short else 50))
    name = "a stop at one gateway, until"
    return [
        Figure(f"{name} the tool at another has ended, p50", "s", percentile(gone, 50)),
        Figure(f"{name} the tool at another has ended, the longest", "s", max(gone), target=TARGET),
        Figure(f"{name} the client of the turn there has heard, the longest", "s", max(heard), target=TARGET),
    ]


async def _stops(runs: str, told: str, times: int) -> tuple[list[float], list[float]]:
    gone, heard = list[float](), list[float]()
    async with (
        grpc.aio.insecure_channel(runs, CLIENT_OPTIONS) as one,
        grpc.aio.insecure_channel(told, CLIENT_OPTIONS) as other,
    ):
        gateway, here = gateway_pb2_grpc.GatewayServiceStub(one), control_pb2_grpc.ControlServiceStub(one)
        control = control_pb2_grpc.ControlServiceStub(other)
        for _ in range(times):
            request = gateway_pb2.RunTurnRequest(input="Sleep.")
            request.new_session.SetInParent()
            turn = asyncio.ensure_future(_ended(gateway.RunTurn(request)))
            await _until(runs=True)
            began = time.perf_counter()
            stop = asyncio.ensure_future(
                control.StopAgents(control_pb2.StopAgentsRequest(scope=_EVERYTHING, reason="a measure"))
            )
            await _until(runs=False)
            gone.append(time.perf_counter() - began)
            heard.append(await turn - began)
            stopped = (await stop).stop.id
            await control.Resume(control_pb2.ResumeRequest(stop_id=stopped, reason="measured"))
            while (await here.ListStops(control_pb2.ListStopsRequest())).stops:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(_PAUSE_SECONDS)
    return gone, heard


async def _ended(call: grpc.aio.UnaryStreamCall) -> float:  # type: ignore[type-arg] # as the stubs have it
    """When the last event of a turn came."""
    async for _ in call:
        pass
    return time.perf_counter()


async def _until(*, runs: bool) -> None:
    """Until the command runs, or does not."""
    while _is_running() is not runs:  # noqa: ASYNC110 - nothing tells of a process that is not ours
        await asyncio.sleep(_PAUSE_SECONDS)


def _is_running() -> bool:
    argument = f"sleep\0{_SLEEP_SECONDS}\0".encode()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and (folder / "cmdline").read_bytes() == argument:
                return True
        except OSError:  # it has just ended
            continue
    return False
