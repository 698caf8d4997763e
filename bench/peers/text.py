"""Text through ours and through LiteLLM's proxy, against httpx2 that asks the model server itself."""

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import httpx2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from bench.figures import Figure, compare, percentile
from bench.load_turns import start_gateway
from bench.peers.environments import python_of, version_of
from bench.peers.steps import gateway_settings
from bench.services import closed_port, model_server, start_ledger
from bench.workers import Worker, answer, options, questions
from demo.processes import REPOSITORY, environment
from recording.channel.options import CLIENT_OPTIONS

DELTAS = 2_000
"""Of a long answer; each is a word in an event of its own, as the model server sends it."""
STARTING_SECONDS = 180.0

Read = Callable[[str], Awaitable[tuple[float, float, int]]]
"""Asks for a model's answer. It gives the seconds to the first text and to the end, and the characters of the text."""


def measure(place: Path, *, short: bool) -> list[Figure]:
    """Deltas a second of a long answer, and the first token that each adds to a direct request."""
    long = " ".join(f"word{number % 7}" for number in range(DELTAS))  # LiteLLM ends one that repeats a word
    called = f"LiteLLM's proxy {version_of('proxy', 'litellm')}"
    rates = _by_turns(place / "long", long, rounds=3 if short else 20)
    first = _by_turns(place / "short", "Yes.", rounds=50 if short else 500)
    figures = [
        compare(
            f"text: {name}, against direct httpx2",
            "deltas/s",
            [DELTAS / whole for _, whole in rates[key]],
            [DELTAS / whole for _, whole in rates["direct"]],
            None,
        )
        for key, name in (("gateway", "ours"), ("proxy", called))
    ]
    direct = [seconds * 1000 for seconds, _ in first["direct"]]
    for key, name in (("gateway", "ours"), ("proxy", called)):
        times = [seconds * 1000 for seconds, _ in first[key]]
        added = [one - other for one, other in zip(times, direct, strict=True)]
        figures += [
            Figure(f"first token: added by {name}, p{percent}", "ms", percentile(added, percent))
            for percent in (50, 99)
        ]
    return figures


def _by_turns(place: Path, text: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    place.mkdir()
    workspace = place / "workspace"
    workspace.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(model_server(place, {"check": False, "steps": [{"text": text}]}))
        ledger = stack.enter_context(start_ledger(place)).address
        gateway = stack.enter_context(start_gateway(place, workspace, url, ledger, **gateway_settings(url)))
        proxy = stack.enter_context(_proxy(place, f"{url}/v1"))
        targets = {"direct": f"{url}/v1", "gateway": gateway.address, "proxy": f"{proxy}/v1"}
        workers = {
            name: stack.enter_context(Worker("bench.peers.text", name=name, target=target))
            for name, target in targets.items()
        }
        names = list(workers)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for worker in workers.values():
            worker.ask()
        for _ in range(rounds):
            names.append(names.pop(0))
            for name in names:
                seconds, whole, size = workers[name].ask()
                if size != len(text):
                    raise RuntimeError(f"{name} gave {size} characters of {len(text)}")
                times[name].append((seconds, whole))
    return times


@contextmanager
def _proxy(place: Path, url: str) -> Iterator[str]:
    """LiteLLM's proxy before a model server, with one worker and neither database nor callbacks."""
    parameters = {"model": "openai/scripted", "api_base": url, "api_key": "none"}
    config = place / "litellm.yaml"
    config.write_text(json.dumps({"model_list": [{"model_name": "scripted", "litellm_params": parameters}]}))
    port, python = closed_port(), python_of("proxy")
    command = [str(python.with_name("litellm")), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = environment(
        {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    )
    with (
        (place / "litellm.log").open("w") as log,
        subprocess.Popen([str(python), *command], env=env, stdout=log, stderr=log, cwd=REPOSITORY) as process,
    ):
        try:
            deadline = time.monotonic() + STARTING_SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError((place / "litellm.log").read_text()) from None
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _over_http(client: httpx2.AsyncClient) -> Read:
    async def read(url: str) -> tuple[float, float, int]:
        started, first, size = time.perf_counter(), 0.0, 0
        request = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "Say it."}]}
        async with client.stream("POST", f"{url}/chat/completions", json=request) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if "choices" not in event:
                        raise RuntimeError(f"{url} answered {line}")
                    for choice in event["choices"]:
                        if text := choice["delta"].get("content"):
                            first, size = first or time.perf_counter(), size + len(text)
        return first - started, time.perf_counter() - started, size

    return read


def _over_grpc(stub: "gateway_pb2_grpc.GatewayServiceAsyncStub") -> Read:
    async def read(_target: str) -> tuple[float, float, int]:
        started, first, size = time.perf_counter(), 0.0, 0
        async for event in stub.RunTurn(pb.RunTurnRequest(input="Say it.")):
            if event.HasField("text_delta"):
                first, size = first or time.perf_counter(), size + len(event.text_delta.text)
        return first - started, time.perf_counter() - started, size

    return read


async def _work(name: str, target: str) -> None:
    # The proxies of the environment are for the web.
    async with (
        httpx2.AsyncClient(timeout=60, trust_env=False) as client,
        grpc.aio.insecure_channel(target, CLIENT_OPTIONS) as channel,
    ):
        read = _over_grpc(gateway_pb2_grpc.GatewayServiceStub(channel)) if name == "gateway" else _over_http(client)
        async for _ in questions():
            answer(await read(target))


if __name__ == "__main__":
    asyncio.run(_work(**options()))
