"""Conversations: a turn's own cost as its session grows, what syncing costs, and listings of many sessions.

The turns run in this process on the agent loop, with the scripted model server in its own; what is compared is the user
CPU time of this process. Listings beside turns are asked of a gateway in a process of its own.
"""

import asyncio
import logging
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.rpc import status_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc
from uuid_utils import uuid7

from bench.figures import Figure, Target, compare
from bench.services import model_server
from demo.processes import start_service
from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.files.places import Places
from gateway_svc.conversations.files.session_file import write
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.session import SessionState
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.loop.agent import Agent, Limits
from gateway_svc.loop.answers import Answers
from gateway_svc.messages import AssistantMessage, UserMessage
from gateway_svc.servicer import status_of
from gateway_svc.tools.files import Files
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.requests import Requests
from gateway_svc.turns.sessions import Sessions
from recording.channel.options import CLIENT_OPTIONS
from service_kit.collector import tune_collector

SAID = {"check": False, "steps": [{"text": "So it is, as far as anybody knows."}]}
CONTEXT_TOKENS = 32_768
FEW, MANY = 10, 3_000
LISTERS, RUNNING = 20, 50
DAY_MS = 86_400_000


class _NoRecord:
    def intend(self, row: audit_pb2.AuditRow) -> None: ...

    async def synced(self) -> None: ...

    def record(self, row: Any) -> None: ...


class House:
    """Turns over one engine."""

    def __init__(self, folder: Path, url: str, *, synced: bool = True) -> None:
        self.home = FileConversations(folder, synced=synced)
        self._engine = OllamaEngine(url, "scripted", num_ctx=CONTEXT_TOKENS)
        agent = Agent(
            self._engine,
            Toolbox([]),
            Files(folder),
            _NoRecord(),
            price=lambda model, usage: 0,
            context_tokens=lambda model: CONTEXT_TOKENS,
            answers=Answers(1),
            limits=Limits(),
        )
        self._turns = Turns(
            Sessions(self.home), {"ollama": agent}, "ollama", lambda state: None, _status_of, Requests(folder)
        )

    async def session(self, turns: int) -> str:
        """A session in which so much was said."""
        state = SessionState(id=str(uuid7()), revision=1)
        await self.home.create(state, synced=False)
        lease = await self.home.open(state.id)
        for number in range(turns):
            lease.append(UserMessage(f"What do you know of number {number}, and of those that come after it?"))
            lease.append(AssistantMessage("So it is, as far as anybody knows."))
        await lease.save()
        await lease.close()
        return state.id

    async def run(self, session_id: str) -> None:
        """A turn."""
        request = pb.RunTurnRequest(session_id=session_id, input="What do you know of the next number?")
        async with aclosing(self._turns.run(request)) as events:
            async for event in events:
                last = event
        assert last.turn_finished.stop_reason == pb.STOP_REASON_COMPLETED, last

    async def aclose(self) -> None:
        """Closes it."""
        await self._turns.cancel_all()
        self._turns.close()
        await self._engine.aclose()


def _status_of(error: BaseException) -> status_pb2.Status:
    return status_of(error)


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tune_collector()  # as a gateway does, or a look at all of this process would count as a listing
    for name in ("turns", "listed", "beside"):
        (place / name).mkdir()
    with model_server(place, SAID) as url:
        figures = asyncio.run(_turns(place / "turns", url, rounds=5 if short else 15))
        figures += asyncio.run(_listings(place / "listed", sessions=10_000 if short else 100_000))
        figures += asyncio.run(_beside_turns(place / "beside", url, sessions=10_000, seconds=3 if short else 8))
    return figures


async def _turns(folder: Path, url: str, rounds: int) -> list[Figure]:
    house, unsynced = House(folder, url), House(folder, url, synced=False)
    few, many, other = await house.session(FEW), await house.session(MANY), await unsynced.session(FEW)
    costs: dict[str, list[float]] = {name: [] for name in ("few", "many", "synced", "unsynced")}
    for session_id in (few, many):
        await house.run(session_id)  # which reads it
    await unsynced.run(other)
    for _ in range(rounds):
        costs["few"].append(await _of(house, few, time.process_time))
        costs["many"].append(await _of(house, many, time.process_time))
        costs["synced"].append(await _of(house, few, time.perf_counter))
        costs["unsynced"].append(await _of(unsynced, other, time.perf_counter))
    for each in (house, unsynced):
        await each.aclose()
    name = f"a turn's CPU time after {MANY:,} turns; after {FEW}"
    return [
        compare(name, "ms", costs["many"], costs["few"], Target(max_ratio=1.5)),
        compare("a turn whose begin and end are synced; not synced", "ms", costs["synced"], costs["unsynced"], None),
    ]


async def _of(house: House, session_id: str, clock: Callable[[], float], turns: int = 10) -> float:
    """Milliseconds a turn."""
    began = clock()
    for _ in range(turns):
        await house.run(session_id)
    return (clock() - began) / turns * 1000


def fill(state_dir: Path, sessions: int, owners: int) -> None:
    """Sessions of a month, of several callers, made as a gateway makes them."""
    places, now_ms = Places(state_dir / "sessions"), time.time_ns() // 1_000_000
    places.make()
    for number in range(sessions):
        made_ms = now_ms - 30 * DAY_MS + 30 * DAY_MS * number // sessions
        tail = uuid7().hex[12:]
        digits = f"{made_ms:012x}{tail}"
        session_id = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        state = SessionState(session_id, revision=1, created_at_ms=made_ms, updated_at_ms=made_ms)
        state.owner = f"caller-{number % owners}"
        state.settings.labels["team"] = "research"
        path = places.new(state.owner, session_id)
        write(path, state, 0, Keys().cipher(session_id, state.owner), synced=False)
    os.sync()  # or the disk would be busy with them while others are measured


async def _listings(folder: Path, sessions: int) -> list[Figure]:
    await asyncio.to_thread(fill, folder, sessions, 10)
    home, figures = FileConversations(folder), []
    for viewer, who in (("caller-3", "of ten callers"), (None, "of all, for an administrator")):
        took = []
        for _ in range(20):
            began = time.perf_counter()
            page = (await home.list_page(100, None, viewer)).states
            took.append((time.perf_counter() - began) * 1000)
            assert len(page) == 100
        name = f"a page of 100 of {sessions:,} sessions {who}, slowest of 20"
        figures.append(Figure(name, "ms", max(took), target=Target(max_ours=100)))
    return figures


async def _beside_turns(folder: Path, url: str, sessions: int, seconds: float) -> list[Figure]:
    """Turns of many callers without listings, and beside twenty listings at once."""
    await asyncio.to_thread(fill, folder, sessions, 10)
    env = {"GATEWAY_OLLAMA_URL": url, "GATEWAY_OLLAMA_MODEL": "scripted", "GATEWAY_STATE_DIR": str(folder)}
    env |= {"GATEWAY_BASH_SANDBOX": "off", "GATEWAY_LISTEN": "127.0.0.1:0", "GATEWAY_AUDIT_TARGET": "127.0.0.1:9"}
    async with AsyncExitStack() as stack:
        service = stack.enter_context(await asyncio.to_thread(start_service, "gateway_svc", env, "serve"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(service.address, CLIENT_OPTIONS))
        stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
        alone, beside, listed = [], [], list[float]()
        for _ in range(3):
            alone.append(await _p50(stub, seconds, None))
            beside.append(await _p50(stub, seconds, listed))
    name = f"{RUNNING} turns at once beside {LISTERS} listings at once of {sessions:,} sessions, p50; without"
    return [
        compare(name, "ms", beside, alone, None),
        Figure("such a listing meanwhile, p50", "ms", statistics.median(listed)),
    ]


async def _p50(stub: Any, seconds: float, listed: list[float] | None) -> float:
    """Of turns; beside listings if `listed` is given, which gets their times."""
    took: list[float] = []

    async def turns() -> None:
        while True:
            began = time.perf_counter()
            async for _ in stub.RunTurn(pb.RunTurnRequest(input="go")):
                pass
            took.append((time.perf_counter() - began) * 1000)

    async def listings(listed: list[float]) -> None:
        while True:
            began = time.perf_counter()
            await stub.ListSessions(pb.ListSessionsRequest(page_size=100))
            listed.append((time.perf_counter() - began) * 1000)

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for _ in range(RUNNING):
                group.create_task(turns())
            if listed is not None:
                for _ in range(LISTERS):
                    group.create_task(listings(listed))
    return statistics.median(took)
