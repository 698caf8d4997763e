"""(g) One gateway with many turns at once, each of five steps with a tool, and all their rows in the ledger."""

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from bench.figures import Figure, Target, percentile
from bench.memory import memory_mb
from bench.services import model_server, start_ledger
from demo.processes import Service, start_service
from recording.channel.options import DIRECT

STEPS = 5
TURNS = 500
SHORT_TURNS = 100
MODEL_MS = 1000
"""How long the model server takes before it answers."""
SCRIPT = {
    "check": False,
    "steps": [
        {
            "text": "I will look that up.",
            "tool_calls": [{"name": "read", "arguments": {"path": "numbers.txt"}}],
            "repeat": STEPS,
            "delay_ms": MODEL_MS,
        },
        {"text": "The number is 1.", "delay_ms": MODEL_MS},
    ],
}

_CHANNELS = 10
_ROWS_SECONDS = 60.0


@dataclass(slots=True)
class _Turns:
    accepted_ms: list[float] = field(default_factory=list)
    """From the call to the first event."""
    started_ms: list[float] = field(default_factory=list)
    """From the call to the turn's start, which the wait for a place comes before."""
    text_ms: list[float] = field(default_factory=list)
    """From the call to the first text."""
    whole_ms: list[float] = field(default_factory=list)


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of 500 turns at once; short: of 100."""
    turns = SHORT_TURNS if short else TURNS
    workspace = place / "workspace"
    workspace.mkdir()
    (workspace / "numbers.txt").write_text("1\n" * 50)
    with ExitStack() as stack:
        url = stack.enter_context(model_server(place, SCRIPT))
        ledger = stack.enter_context(start_ledger(place))
        gateway = stack.enter_context(
            start_gateway(place, workspace, url, ledger.address, GATEWAY_MAX_TURNS=str(turns))
        )
        asyncio.run(_run(gateway.address, 10))  # warm up
        before = memory_mb("VmRSS", gateway.pid)
        started = time.perf_counter()
        times = asyncio.run(_run(gateway.address, turns))
        seconds = time.perf_counter() - started
        grown = memory_mb("VmHWM", gateway.pid) - before
        _wait_for_rows(place / "audit.db", (turns + 10) * STEPS)
    name = f"(g) {turns} turns at once"
    return [
        Figure(f"{name}, {STEPS} tool calls each: all finished, all rows in the ledger", "s", seconds),
        Figure(f"{name}: a step, all turns together", "ms", seconds * 1000 / (turns * (STEPS + 1))),
        Figure(f"{name}: first event, p50", "ms", percentile(times.accepted_ms, 50)),
        Figure(f"{name}: first event, p99", "ms", percentile(times.accepted_ms, 99)),
        Figure(f"{name}: start, p50", "ms", percentile(times.started_ms, 50)),
        Figure(f"{name}: start, p99", "ms", percentile(times.started_ms, 99)),
        Figure(f"{name}: first text, p50", "ms", percentile(times.text_ms, 50)),
        Figure(f"{name}: first text, p99", "ms", percentile(times.text_ms, 99)),
        Figure(
            f"{name}: slowest turn against the fastest",
            "ms",
            max(times.whole_ms),
            min(times.whole_ms),
            max(times.whole_ms) / min(times.whole_ms),
            Target(max_ratio=3),
        ),
        Figure(f"{name}: memory of a turn", "kB", grown * 1024 / turns, target=Target(max_ours=500)),
    ]


def start_gateway(place: Path, workspace: Path, url: str, ledger: str, **more: str) -> Service:
    """gateway_svc with the scripted model; more: further settings."""
    env = {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_AUDIT_TARGET": ledger,
        "GATEWAY_STATE_DIR": str(place / "gateway"),
        "GATEWAY_WORKSPACE": str(workspace),
        "GATEWAY_OLLAMA_URL": url,
        "GATEWAY_OLLAMA_MODEL": "scripted",
        **more,
    }
    return start_service("gateway_svc", env, "serve")


async def _run(address: str, turns: int) -> _Turns:
    times = _Turns()
    async with AsyncExitStack() as stack:
        # A connection takes at most 100 streams by default.
        options = [*DIRECT, ("grpc.use_local_subchannel_pool", 1)]
        stubs = [
            gateway_pb2_grpc.GatewayServiceStub(
                await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
            )
            for _ in range(_CHANNELS)
        ]
        await asyncio.gather(*(_turn(stubs[number % _CHANNELS], times) for number in range(turns)))
    return times


async def _turn(stub: "gateway_pb2_grpc.GatewayServiceAsyncStub", times: _Turns) -> None:
    called, accepted, started, text = time.perf_counter(), 0.0, 0.0, 0.0
    async for event in stub.RunTurn(pb.RunTurnRequest(input="Look up the numbers.")):
        accepted = accepted or time.perf_counter()
        if event.HasField("turn_started"):
            started = time.perf_counter()
        if event.HasField("text_delta"):
            text = text or time.perf_counter()
    finished = event.turn_finished
    if finished.stop_reason != pb.STOP_REASON_COMPLETED or finished.tool_calls != STEPS:
        raise RuntimeError(f"a turn did not finish: {finished}")
    times.accepted_ms.append((accepted - called) * 1000)
    times.started_ms.append((started - called) * 1000)
    times.text_ms.append((text - called) * 1000)
    times.whole_ms.append((time.perf_counter() - called) * 1000)


def _wait_for_rows(database: Path, rows: int) -> None:
    deadline = time.monotonic() + _ROWS_SECONDS
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        while (found := connection.execute("SELECT count(*) FROM tool_call_log").fetchone()[0]) != rows:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{found} rows are in the ledger, of {rows}")
            time.sleep(0.05)
    finally:
        connection.close()
