"""Turns over a real state directory, whose runners do what a test wants."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.messages import AssistantMessage, Message
from gateway_svc.servicer import status_of
from gateway_svc.turns.named import Claims
from gateway_svc.turns.queue import Capacity, Turns
from gateway_svc.turns.requests import Requests
from gateway_svc.turns.turn import Turn
from tests.support.conversations import open_sessions


class Runner:
    """Runs a turn as a test wants it."""

    default_model = "m1"
    jail = ""

    def __init__(self, name: str = "one", work: Callable[[Turn], Awaitable[None]] | None = None) -> None:
        self.name = name
        self.work = work
        self.seen: list[tuple[str, list[Message]]] = []

    async def run(self, turn: Turn) -> pb.StopReason.ValueType:
        self.seen.append((turn.scope.model, list(turn.history)))
        if self.work:
            await self.work(turn)
        turn.append(AssistantMessage("answer"))
        turn.events.put_text("answer")
        return pb.STOP_REASON_COMPLETED

    async def aclose(self) -> None: ...


class House:
    """Turns over a real state directory."""

    def __init__(
        self, state_dir, *runners: Runner, capacity: Capacity | None = None, shared: Claims | None = None
    ) -> None:
        self.rows: list[audit_pb2.SessionRow] = []
        self.sessions = open_sessions(state_dir)
        by_name = {runner.name: runner for runner in runners}
        self.turns = Turns(
            self.sessions,
            by_name,
            runners[0].name,
            lambda state: self.rows.append(state.to_row()),
            status_of,
            Requests(state_dir),
            capacity=capacity,
            shared=shared,
        )

    async def run(self, **request) -> list[pb.TurnEvent]:
        async with aclosing(self.turns.run(pb.RunTurnRequest(**request))) as events:
            return [event async for event in events]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


def statuses(house: House) -> list[str]:
    return [common_pb2.SessionStatus.Name(row.status).removeprefix("SESSION_STATUS_") for row in house.rows]
