"""A gateway that is told to end while many turns run, and the count of what is left."""

import asyncio
import signal
from dataclasses import dataclass, field

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.script import Call, Script, Step

STEPS = 5
SCRIPT = Script(
    steps=(
        Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),), repeat=STEPS, delay_ms=150),
        Step(text="Done."),
    ),
    check=False,
)


@dataclass
class Streams:
    """What the clients of all turns heard."""

    started: set[str] = field(default_factory=set)
    """Ids of tool calls that began."""
    stop_reasons: list[int] = field(default_factory=list)
    refused: list[grpc.aio.AioRpcError] = field(default_factory=list)
    """Turns that did not begin."""
    cut: int = 0
    """Turns that had begun, and whose stream ended without a last event."""


async def run_turns(address: str, turns: int, streams: Streams) -> None:
    """Begins as many turns at once, and listens to each to its end."""
    channels = [grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
    stubs = [gateway_pb2_grpc.GatewayServiceStub(channel) for channel in channels]

    async def run(number: int) -> None:
        stop_reason, begun = None, False
        try:
            async for event in stubs[number % 10].RunTurn(pb.RunTurnRequest(input="go")):
                begun = True
                if event.HasField("tool_call_started"):
                    streams.started.add(event.tool_call_started.tool_call_id)
                if event.HasField("turn_finished"):
                    stop_reason = event.turn_finished.stop_reason
        except grpc.aio.AioRpcError as error:
            if not begun:
                streams.refused.append(error)
                return
        if stop_reason is None:
            streams.cut += 1
        else:
            streams.stop_reasons.append(stop_reason)

    await asyncio.gather(*map(run, range(turns)))
    for channel in channels:
        await channel.close()


async def drain_under_load(pair, turns: int, drain_seconds: float) -> Streams:
    """Ends a gateway in the middle of its turns; when it has ended, what its clients heard.

    Checks that it ends, that no stream hangs, and that after a restart each call that began has its row.
    """
    (pair.workspace / "notes.txt").write_text("tides\n")
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_DRAIN_SECONDS=str(drain_seconds), GATEWAY_MAX_TURNS=str(turns))
    streams = Streams()
    running = asyncio.create_task(run_turns(service.address, turns, streams))
    while len(streams.started) < turns // 2:
        await asyncio.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(service.process.wait, drain_seconds + 120) == 0, service.stderr_text()[-4000:]
    async with asyncio.timeout(120):
        await running

    pair.start_gateway(GATEWAY_MAX_TURNS=str(turns))  # sends what the first one could not
    rows, wanted = set[str](), streams.started
    async with asyncio.timeout(120):
        while not wanted <= rows:
            rows = {str(row[0]) for row in pair.query("SELECT id FROM tool_call_log")}
            await asyncio.sleep(0.05)
    return streams
