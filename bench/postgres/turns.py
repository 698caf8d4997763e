"""A turn's start and end with its session in PostgreSQL, against files: over gRPC, with a model that says one word.

From the request to the turn's first event is its start; from the model's answer to the last event its end.
"""

import asyncio
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from bench.figures import Figure, Target
from bench.services import closed_port, model_server
from demo.postgres import PostgresServer
from demo.processes import Service, start_service
from recording.channel.options import CLIENT_OPTIONS

SAID = {"check": False, "steps": [{"text": "Yes."}]}
MOST_MS = 5.0
"""What PostgreSQL may add."""
_WARM_UP = 5


def measure(place: Path, server: PostgresServer, *, short: bool) -> list[Figure]:
    """The figures of turns of one session each, one after the other."""
    with ExitStack() as stack:
        url = stack.enter_context(model_server(place, SAID))
        homes = {
            "files": stack.enter_context(start_gateway(place / "files", url)),
            "postgres": stack.enter_context(
                start_gateway(place / "postgres", url, GATEWAY_SESSIONS=server.create_database("conversations"))
            ),
        }
        took = asyncio.run(_by_turns({name: home.address for name, home in homes.items()}, 40 if short else 400))
    figures = []
    for part in ("start", "end"):
        files, postgres = (statistics.median(at[part] for at in took[name]) for name in ("files", "postgres"))
        figures += [
            Figure(
                f"a turn's {part}, session in PostgreSQL, against files, p50", "ms", postgres, files, postgres / files
            ),
            Figure(
                f"a turn's {part}: what PostgreSQL adds, p50", "ms", postgres - files, target=Target(max_ours=MOST_MS)
            ),
        ]
    return figures


def start_gateway(state: Path, model_url: str, **settings: str) -> Service:
    """gateway_svc with its files in state, and no ledger that takes its rows."""
    env = {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_AUDIT_TARGET": f"127.0.0.1:{closed_port()}",
        "GATEWAY_STATE_DIR": str(state),
        "GATEWAY_OLLAMA_URL": model_url,
        "GATEWAY_OLLAMA_MODEL": "scripted",
        **settings,
    }
    return start_service("gateway_svc", env, "serve")


async def _by_turns(addresses: dict[str, str], turns: int) -> dict[str, list[dict[str, float]]]:
    """The milliseconds of each turn's start and end, by the home of its session."""
    took: dict[str, list[dict[str, float]]] = {name: [] for name in addresses}
    channels = {name: grpc.aio.insecure_channel(address, CLIENT_OPTIONS) for name, address in addresses.items()}
    stubs = {name: gateway_pb2_grpc.GatewayServiceStub(channel) for name, channel in channels.items()}
    sessions: dict[str, str] = {}
    for number in range(-_WARM_UP, turns):
        for name, stub in stubs.items():
            times, sessions[name] = await _turn(stub, sessions.get(name, ""))
            if number >= 0:
                took[name].append(times)
    for channel in channels.values():
        await channel.close()
    return took


async def _turn(stub: "gateway_pb2_grpc.GatewayServiceAsyncStub", session_id: str) -> tuple[dict[str, float], str]:
    request = pb.RunTurnRequest(input="Is it so?", session_id=session_id)
    if not session_id:
        request.new_session.SetInParent()
    at = {"asked": time.perf_counter()}
    async for event in stub.RunTurn(request):
        kind = str(event.WhichOneof("event"))
        at[kind] = time.perf_counter()
        if kind == "turn_accepted":
            session_id = event.turn_accepted.session_id
        elif kind == "turn_finished" and event.turn_finished.stop_reason != pb.STOP_REASON_COMPLETED:
            raise RuntimeError(f"a turn did not complete: {event.turn_finished}")
    ends = {"start": at["turn_started"] - at["asked"], "end": at["turn_finished"] - at["text_delta"]}
    return {part: seconds * 1000 for part, seconds in ends.items()}, session_id
