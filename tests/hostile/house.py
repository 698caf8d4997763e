"""A gateway with a hostile peer in it, and an honest caller beside: what each call became, and what was left behind."""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from onrecord.audit.v1 import audit_pb2, questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.processes import Service
from tests.hostile.conftest import Start, forget_peak, memory
from tests.hostile.obedient import ObedientModel, obedient_model

MIB = 2**20
HONEST = [
    {"name": "read", "arguments": {"path": "notes.txt"}},
    {"name": "glob", "arguments": {"pattern": "notes.*"}},
    {"name": "grep", "arguments": {"pattern": "honest", "path": "notes.txt"}},
]
ENOUGH = 10
"""Turns of the honest caller."""
BACK_SECONDS = 60.0
"""How long to wait until what an attack took is given back: idle connections stay open for seconds."""


@dataclass(frozen=True)
class Case:
    """What a hostile peer makes of calls, and what must become of them."""

    name: str
    calls: tuple[dict[str, Any], ...]
    outcomes: str
    """The names of the outcomes that each call may have, as an expression."""
    error: str = ""
    """What the row's error says, as an expression."""
    told: str = ""
    """What the model is told, as an expression."""
    growth: int = 256 * MIB
    """The most that the gateway may take of memory meanwhile."""


Held = dict[str, Counter[str]]
"""What a process holds: descriptors by what they are of; threads, children and temporary files by name."""


@dataclass
class House:
    """The services, and the model that says what is called."""

    gateway: Service
    stub: Any
    questions: Any
    model: ObedientModel
    temporary: Path
    ends: list[str] = field(default_factory=list)
    """How the honest caller's turns ended."""

    async def turn(self, calls: list[dict[str, Any]]) -> tuple[str, str]:
        """How a turn with these calls ended, and its session."""
        session = ""
        async for event in self.stub.RunTurn(pb.RunTurnRequest(input=json.dumps(calls)), timeout=120):
            if event.HasField("turn_accepted"):
                session = event.turn_accepted.session_id
            if event.HasField("tool_call_finished") and (error := event.tool_call_finished.error):
                self.ends.append(error) if calls == HONEST else None
            if event.HasField("turn_finished"):
                return pb.StopReason.Name(event.turn_finished.stop_reason).removeprefix("STOP_REASON_"), session
        raise AssertionError("the turn did not end")

    async def rows(self, session: str, count: int) -> list[audit_pb2.AuditRow]:
        """The session's rows in the ledger."""
        wanted = questions_pb2.ToolCallFilter(session_id=session)
        async with asyncio.timeout(30):
            while True:
                request = questions_pb2.ListToolCallsRequest(page_size=1000, filter=wanted)
                found = (await self.questions.ListToolCalls(request)).tool_calls
                if len(found) >= count:
                    return [record.tool_call for record in found]
                await asyncio.sleep(0.05)

    async def stand(self, case: Case) -> list[str]:
        """Makes a case; what was not as it must be."""
        wrong, before, began = [], forget_peak(self.gateway), time.monotonic()
        calls = list(case.calls)
        end, session = await self.turn(calls)
        if end != "COMPLETED":
            wrong.append(f"the turn ended as {end}")
        for row in await self.rows(session, len(calls)):
            outcome = common_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_")
            if not re.fullmatch(case.outcomes, outcome) or not re.search(case.error, row.error):
                wrong.append(f"a row says {outcome}: {row.error}")
        told = "\n".join(self.model.told.get(json.dumps(calls), []))
        if not re.search(case.told, told):
            wrong.append(f"the model is told {told[:300]!r}")
        if (grown := memory(self.gateway, "VmHWM") - before) > case.growth:
            wrong.append(f"it took {grown / MIB:.0f} MiB")
        print(f"{case.name}: {time.monotonic() - began:.1f} s, {grown / MIB:.0f} MiB")
        return [f"{case.name}: {what}" for what in wrong]

    async def stand_all(self, cases: list[Case]) -> list[str]:
        """Makes the cases one after the other beside an honest caller; all that was not as it must be."""
        await asyncio.gather(*(self.turn(HONEST) for _ in range(16)))  # whose threads and connections stay
        before = self.held()
        async with self.honest_caller():
            wrong = [what for case in cases for what in await self.stand(case)]
            async with asyncio.timeout(BACK_SECONDS):
                while len(self.ends) < ENOUGH:
                    await asyncio.sleep(0.1)
        if any(end != "COMPLETED" for end in self.ends):
            wrong.append(f"the honest caller's turns ended as {set(self.ends)}")
        with suppress(TimeoutError):
            async with asyncio.timeout(BACK_SECONDS):
                while more_than(before, self.held()):
                    await asyncio.sleep(0.1)
        if left := more_than(before, self.held()):
            wrong.append(f"it still holds {left}")
        return wrong

    @asynccontextmanager
    async def honest_caller(self) -> AsyncIterator[None]:
        """Ten turns a second, each with calls of the tools on files."""

        async def call() -> None:
            self.ends.append((await self.turn(HONEST))[0])

        async def keep_calling() -> None:
            async with asyncio.TaskGroup() as group:
                while not over.is_set():
                    group.create_task(call())
                    await asyncio.sleep(0.1)

        over = asyncio.Event()
        calling = asyncio.create_task(keep_calling())
        try:
            yield
        finally:
            over.set()
            await calling

    def held(self) -> Held:
        """What the gateway holds now."""
        process = Path(f"/proc/{self.gateway.pid}")
        threads = list((process / "task").iterdir())
        children = [child for thread in threads for child in _content(thread / "children").split()]
        return {
            "descriptors": Counter(_target(entry) for entry in (process / "fd").iterdir()),
            "threads": Counter(_content(thread / "comm").strip() for thread in threads),
            "children": Counter(_content(Path(f"/proc/{child}/comm")).strip() for child in children),
            "temporary": Counter(entry.name for entry in self.temporary.iterdir()),
        }


def more_than(before: Held, after: Held) -> Held:
    """What is held in a greater number than before. The loop's pool of threads may have grown to its bound."""
    pool = {"threads": (os.cpu_count() or 1) + 4}
    return {
        kind: after[kind] - before[kind]
        for kind in after
        if after[kind].total() > before[kind].total() + pool.get(kind, 0)
    }


def _target(descriptor: Path) -> str:
    with suppress(OSError):
        return re.sub(r"\d+", "N", str(descriptor.readlink()))
    return "gone"


def _content(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""


@asynccontextmanager
async def open_house(start: Start, folder: Path, **env: str) -> AsyncIterator[House]:
    """Both services, and an obedient model."""
    temporary, workspace = folder / "temporary", folder / "workspace"
    for made in (temporary, workspace):
        made.mkdir(exist_ok=True)
    (workspace / "notes.txt").write_text("an honest line\n")
    async with obedient_model() as model:
        audit = await asyncio.to_thread(start, "audit_svc")
        gateway = await asyncio.to_thread(
            start,
            "gateway_svc",
            GATEWAY_AUDIT_TARGET=audit.address,
            GATEWAY_OLLAMA_URL=model.url,
            GATEWAY_WORKSPACE=str(workspace),
            TMPDIR=str(temporary),
            **env,
        )
        async with (
            grpc.aio.insecure_channel(gateway.address) as channel,
            grpc.aio.insecure_channel(audit.address) as to_audit,
        ):
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            yield House(gateway, stub, questions_pb2_grpc.QuestionServiceStub(to_audit), model, temporary)
