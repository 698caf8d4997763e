"""A gateway with a hostile peer in it, and an honest caller beside: what each call became, and what was left behind."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
AT_ONCE = 4
"""Of the honest caller's turns: each starts two programs, and ten a second are more than a slow machine can run."""
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


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
class Ending:
    """How a turn ended."""

    end: str = ""
    """The stop reason, or the status of a turn that failed."""
    told: str = ""
    """What a caller is told of a failure."""
    session: str = ""
    outcomes: list[int] = field(default_factory=list)
    """Of its calls."""
    errors: list[str] = field(default_factory=list)
    """Of its calls."""


@dataclass
class House:
    """The services, and the model that says what is called."""

    gateway: Service
    stub: Any
    questions: Any
    model: ObedientModel
    ends: list[str] = field(default_factory=list)
    """How the honest caller's turns ended."""

    async def end_of(self, **request: Any) -> Ending:
        """How a turn ended."""
        return await end_of(self.stub, **request)

    async def turn(self, calls: list[dict[str, Any]]) -> Ending:
        """How a turn with these calls ended."""
        return await self.end_of(input=json.dumps(calls))

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
        ending = await self.turn(calls)
        if ending.end != "COMPLETED":
            wrong.append(f"the turn ended as {ending.end} {ending.told}")
        for row in await self.rows(ending.session, len(calls)):
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
        async with self.honest():
            wrong = [what for case in cases for what in await self.stand(case)]
        return wrong + await self.wrong()

    @asynccontextmanager
    async def honest(self) -> AsyncIterator[None]:
        """Honest callers meanwhile: of turns with calls of the tools on files, and one whose calls are measured."""
        async with honest_turns(self.gateway, self._honest_turn, self.ends):
            yield

    async def wrong(self) -> list[str]:
        """What was not as it must be for the honest callers, and what the gateway still holds.

        The model, the pages and the servers are still there: a peer that leaves may not be what frees it.
        """
        wrong = [f"the honest caller's turns ended as {ends}"] if (ends := set(self.ends) - {"COMPLETED"}) else []
        return wrong + await asyncio.to_thread(WATCHED[self.gateway.pid].wrong)

    async def _honest_turn(self) -> str:
        ending = await self.turn(HONEST)
        return next(iter(ending.errors), ending.end)


async def end_of(stub: Any, **request: Any) -> Ending:
    """Runs a turn to its end."""
    ending = Ending()
    async for event in stub.RunTurn(pb.RunTurnRequest(**request), timeout=240):
        match event.WhichOneof("event"):
            case "turn_accepted":
                ending.session = event.turn_accepted.session_id
            case "tool_call_finished":
                ending.outcomes.append(event.tool_call_finished.outcome)
                ending.errors += [event.tool_call_finished.error] if event.tool_call_finished.error else []
            case "turn_finished":
                finished = event.turn_finished
                ending.end = pb.StopReason.Name(finished.stop_reason).removeprefix("STOP_REASON_")
                if finished.stop_reason == pb.STOP_REASON_FAILED:
                    ending.end, ending.told = CODES[finished.error.code], finished.error.message
    assert ending.end, "the turn did not end"
    return ending


@asynccontextmanager
async def honest_turns(gateway: Service, turn: Callable[[], Awaitable[str]], ends: list[str]) -> AsyncIterator[None]:
    """Up to ten turns a second while the body runs, whose ends are added, and a caller whose calls are measured.

    What the gateway holds before the body, but after some turns at once, is what it must hold at the end.
    """

    async def one() -> None:
        ends.append(await turn())

    await asyncio.gather(*(turn() for _ in range(16)))  # whose threads and connections stay
    WATCHED[gateway.pid].begin()
    with honest_caller(gateway, "gateway_svc"):
        async with calling(one, AT_ONCE):
            yield
            async with asyncio.timeout(ENOUGH_SECONDS):
                while len(ends) < ENOUGH:
                    await asyncio.sleep(0.1)


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
