"""(i) A step of a turn as a client of RunTurn sees it over gRPC, audited, against a bare loop."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from bench.agent_loop import MANY_STEPS, STEPS, run_by_turns
from bench.figures import Figure, Target, compare
from bench.load_turns import start_gateway
from bench.loops import MODEL, PROMPT
from bench.services import model_server, start_ledger
from bench.workers import Worker, answer, options, questions
from recording.channel.options import CLIENT_OPTIONS

TOOL_CALL = {"name": "read", "arguments": {"path": "numbers.txt"}}
SCRIPT = {"check": False, "steps": [{"text": "I will look that up.", "tool_calls": [TOOL_CALL], "repeat": 1_000_000}]}

TARGETS = {STEPS: Target(max_ratio=1.6), MANY_STEPS: Target(max_ratio=1.3)}


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures at 50 and 400 steps. Both sides read the file."""
    workspace = place / "workspace"
    workspace.mkdir()
    numbers = workspace / "numbers.txt"
    numbers.write_text("1\n")
    with ExitStack() as stack:
        url = stack.enter_context(model_server(place, SCRIPT))
        ledger = stack.enter_context(start_ledger(place)).address
        limits = {"GATEWAY_MAX_STEPS": str(MANY_STEPS), "GATEWAY_OLLAMA_NUM_CTX": "131072"}
        gateway = stack.enter_context(start_gateway(place, workspace, url, ledger, **limits))
        workers = {
            "client": stack.enter_context(Worker("bench.client_turns", address=gateway.address)),
            "bare": stack.enter_context(Worker("bench.loops", url=url, loop="bare", file=str(numbers))),
        }
        run_by_turns(workers, STEPS, 1)
        few = run_by_turns(workers, STEPS, 4 if short else 40)
        many = run_by_turns(workers, MANY_STEPS, 1 if short else 8)
    return [
        compare(
            f"(i) RunTurn over gRPC: a step at {steps} steps, against a bare loop",
            "ms",
            at["client"],
            at["bare"],
            TARGETS[steps],
        )
        for steps, at in ((STEPS, few), (MANY_STEPS, many))
    ]


async def _work(address: str) -> None:
    async with grpc.aio.insecure_channel(address, CLIENT_OPTIONS) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        async for question in questions():
            steps = question["steps"]
            request = pb.RunTurnRequest(input=PROMPT, model=MODEL, max_steps=steps)
            started = time.perf_counter()
            finished = None
            async for event in stub.RunTurn(request):
                finished = event.turn_finished
            if finished is None or finished.usage.requests != steps:
                raise RuntimeError(f"a turn did not take {steps} steps: {finished}")
            answer((time.perf_counter() - started) * 1000 / steps)


if __name__ == "__main__":
    asyncio.run(_work(**options()))
