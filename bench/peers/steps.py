"""A step of a turn: ours over gRPC, audited, the frameworks in process and without a record, and a bare loop."""

import statistics
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure
from bench.load_turns import start_gateway
from bench.peers.environments import python_of, version_of
from bench.services import model_server, start_ledger
from bench.workers import Worker

BARE = "httpx2"
WARMING_STEPS = 3
PACKAGES = {"pydantic-ai": "pydantic-ai-slim"}
NAMES = ("pydantic-ai", "openai-agents", "langchain", "agno", "smolagents")


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of turns of 50 and of 400 steps; short: of 50, with a turn of 400 of each."""
    return [
        *_measure(place / "50", 50, rounds=3 if short else 8),
        *_measure(place / "400", 400, rounds=1 if short else 3),
    ]


def script(steps: int) -> dict[str, object]:
    """A model that calls the tool in all steps but the last."""
    call = {"name": "read", "arguments": {"path": "numbers.txt"}}
    asks = {"text": "I will look that up.", "tool_calls": [call], "repeat": steps - 1}
    return {"check": False, "steps": [asks, {"text": "The number is 1."}]}


def gateway_settings(url: str, steps: int = 50) -> dict[str, str]:
    """A gateway's settings that make it ask a model server in OpenAI's format, as the peers do."""
    return {
        "GATEWAY_OPENAI_URL": f"{url}/v1",
        "GATEWAY_OPENAI_MODEL": "scripted",
        "GATEWAY_DEFAULT_ENGINE": "openai",
        "GATEWAY_MAX_STEPS": str(steps),
    }


def _measure(place: Path, steps: int, rounds: int) -> list[Figure]:
    place.mkdir()
    workspace = place / "workspace"
    workspace.mkdir()
    (workspace / "numbers.txt").write_text("1\n")
    python = str(python_of("frameworks"))
    with ExitStack() as stack:
        url = stack.enter_context(model_server(place, script(steps)))
        warming = stack.enter_context(model_server(place, script(WARMING_STEPS)))
        ledger = stack.enter_context(start_ledger(place)).address
        gateway = stack.enter_context(start_gateway(place, workspace, url, ledger, **gateway_settings(url, steps)))
        workers = {"ours": stack.enter_context(Worker("bench.client_turns", address=gateway.address))}
        for name in (BARE, *NAMES):
            worker = Worker("bench.peers.frameworks", python=python, name=name, workspace=str(workspace))
            workers[name] = stack.enter_context(worker)
        times: dict[str, list[float]] = {name: [] for name in workers}
        names = list(workers)
        for worker in workers.values():
            worker.ask(url=f"{warming}/v1", steps=WARMING_STEPS)
        for _ in range(rounds):
            names.append(names.pop(0))
            for name in names:
                times[name].append(workers[name].ask(url=f"{url}/v1", steps=steps))
    ours = times["ours"]
    return [
        _figure(f"step of {steps}: {name} {version_of('frameworks', PACKAGES.get(name, name))}", ours, times[name])
        for name in (BARE, *NAMES)
    ]


def _figure(name: str, ours: list[float], theirs: list[float]) -> Figure:
    """Medians, and the median of how many times of ours a peer's rounds took."""
    ratio = statistics.median(other / one for one, other in zip(ours, theirs, strict=True))
    return Figure(name, "ms", statistics.median(ours), statistics.median(theirs), ratio)
