"""A gateway with a hostile peer in it, and an honest caller beside: what each call became, and what was left behind."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from onrecord.audit.v1 import audit_pb2, questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.processes import Service
from tests.hostile.conftest import Start
from tests.hostile.held import GROWTH, MIB, WATCHED, forget_peak, memory
from tests.hostile.honest import calling, honest_caller
from tests.hostile.obedient import ObedientModel

HONEST = [
    {"name": "read", "arguments": {"path": "notes.txt"}},
    {"name": "glob", "arguments": {"pattern": "notes.*"}},
    {"name": "grep", "arguments": {"pattern": "honest", "path": "notes.txt"}},
]
ENOUGH = 10
"""Turns of the honest caller."""
ENOUGH_SECONDS = 60


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
    growth: int = GROWTH
    """The most that the gateway may take of memory meanwhile."""


@dataclass
class House:
    """The services, and the model that says what is called."""

    gateway: Service
    stub: Any
    questions: Any
    model: ObedientModel
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
        WATCHED[self.gateway.pid].cases.append((case.name, began, time.monotonic()))
        print(f"{case.name}: {time.monotonic() - began:.1f} s, {grown / MIB:.0f} MiB")
        return [f"{case.name}: {what}" for what in wrong]

    async def stand_all(self, cases: list[Case]) -> list[str]:
        """Makes the cases one after the other beside an honest caller; all that was not as it must be."""
        await asyncio.gather(*(self.turn(HONEST) for _ in range(16)))  # whose threads and connections stay
        watched = WATCHED[self.gateway.pid]
        watched.begin()
        with honest_caller(self.gateway, "gateway_svc"):
            async with calling(self._honest_turn):
                wrong = [what for case in cases for what in await self.stand(case)]
                async with asyncio.timeout(ENOUGH_SECONDS):
                    while len(self.ends) < ENOUGH:
                        await asyncio.sleep(0.1)
        if any(end != "COMPLETED" for end in self.ends):
            wrong.append(f"the honest caller's turns ended as {set(self.ends)}")
        # while the model, the pages and the servers are still there: a peer that leaves may not be what frees it
        return wrong + await asyncio.to_thread(watched.wrong)

    async def _honest_turn(self) -> None:
        """With calls of the tools on files."""
        self.ends.append((await self.turn(HONEST))[0])


@asynccontextmanager
async def open_house(start: Start, folder: Path, **env: str) -> AsyncIterator[House]:
    """Both services, and an obedient model."""
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    (workspace / "notes.txt").write_text("an honest line\n")
    async with ObedientModel() as model:
        audit = await asyncio.to_thread(start, "audit_svc")
        gateway = await asyncio.to_thread(
            start,
            "gateway_svc",
            GATEWAY_AUDIT_TARGET=audit.address,
            GATEWAY_OLLAMA_URL=model.url,
            GATEWAY_WORKSPACE=str(workspace),
            **env,
        )
        async with (
            grpc.aio.insecure_channel(gateway.address) as channel,
            grpc.aio.insecure_channel(audit.address) as to_audit,
        ):
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            yield House(gateway, stub, questions_pb2_grpc.QuestionServiceStub(to_audit), model)
