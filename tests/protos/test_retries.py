"""Connections cut at random under our clients' retry policy: answers are right, and nothing that acts runs twice."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2
from onrecord.client import AsyncGateway
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from audit_svc.services import LedgerServices, error_interceptor
from audit_svc.sqlite.store import SqliteLedger
from demo.script import Script, Step
from gateway_svc.servicer import GatewayServicer
from recording.channel.options import CLIENT_OPTIONS
from recording.rows import ROW_VERSION
from service_kit.handlers import Handler
from service_kit.server import build_server
from tests.audit_svc.samples import audit_row
from tests.audit_svc.stubs import LedgerStub
from tests.faults.proxy import Proxy
from tests.gateway_svc.house import open_house
from tests.support.grpc_server import started

CALLS, AT_ONCE = 400, 4
BYTES_OF_A_CONNECTION = 800, 6_000
ATTEMPTS = 5
CALL = "x-call"
NOT_WRITTEN = "Internal error from Core"
"""What grpc.aio itself says, as INTERNAL, of a stream that it could not write to. No service sends it."""
KNOWN = [audit_row(session_id="known") for _ in range(3)]

Arrived = Counter[str]


class ArrivalsInterceptor(grpc.aio.ServerInterceptor):
    """Counts how often each call reaches the service, by the name that the client gave it."""

    def __init__(self) -> None:
        self.arrived = Arrived()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        metadata: Any = dict(handler_call_details.invocation_metadata or ())
        self.arrived[metadata.get(CALL, "")] += 1
        return await continuation(handler_call_details)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[str, Arrived]]:
    """The ledger and the gateway behind one real port, and which calls have come."""
    ledger = SqliteLedger.open(folder / "audit.db", queue_rows=50_000)
    services, arrivals = LedgerServices(ledger), ArrivalsInterceptor()
    done = Script(steps=(Step(text="Done.", repeat=CALLS),))
    async with open_house(folder, done, done) as house:
        server = build_server([arrivals, error_interceptor()])
        services.add_to(server)
        gateway = GatewayServicer(house.turns, house.sessions, house.agents, "ollama")
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(gateway, server)
        try:
            async with started(server) as address:
                yield address, arrivals.arrived
                services.begin_drain()
        finally:
            await services.close()
            await ledger.close()


Rpc = Callable[..., Any]


async def last(rpc: Rpc, request: Any, **options: Any) -> Any:
    """The last message of a stream, read to its end."""
    return [message async for message in rpc(request, **options)][-1]


class Asking:
    """What may be tried again, and what may not: each sends one call and says whether its answer was right."""

    def __init__(self, ledger: Any, gateway: Any) -> None:
        self.recorded: list[str] = []
        """The rows of the batches that were acknowledged."""
        self._ledger = ledger
        self._gateway = gateway
        self.again = (self.listed, self.summed, self.found, self.batch, self.large_batch, self.engines, self.sessions)
        self.once = (self.exported, self.stream, self.prune, self.create, self.turn)

    async def listed(self, **options: Any) -> bool:
        wanted = questions_pb2.ToolCallFilter(session_id="known")
        answer = await self._ledger.ListToolCalls(questions_pb2.ListToolCallsRequest(filter=wanted), **options)
        return {record.tool_call.id for record in answer.tool_calls} == {row.id for row in KNOWN}

    async def summed(self, **options: Any) -> bool:
        wanted = questions_pb2.ToolCallFilter(session_id="known")
        answer = await self._ledger.SummarizeUsage(questions_pb2.SummarizeUsageRequest(filter=wanted), **options)
        return [group.tool_calls for group in answer.groups] == [len(KNOWN)]

    async def found(self, **options: Any) -> bool:
        session = questions_pb2.RowKey(id="nobody")
        try:
            await self._ledger.GetSessionRecord(questions_pb2.GetSessionRecordRequest(session=session), **options)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return True
            raise
        return False

    async def batch(self, rows: int = 1, **options: Any) -> bool:
        made = [audit_row(session_id="batches") for _ in range(rows)]
        request = audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=made)
        answer = await self._ledger.RecordBatch(request, **options)
        self.recorded += [row.id for row in made]
        return bool(answer.stored + answer.duplicates == rows)

    async def large_batch(self, **options: Any) -> bool:
        return await self.batch(rows=20, **options)

    async def engines(self, **options: Any) -> bool:
        answer = await self._gateway.ListEngines(pb.ListEnginesRequest(), **options)
        return {engine.name for engine in answer.engines} == {"ollama", "openai"}

    async def sessions(self, **options: Any) -> bool:
        answer = await self._gateway.ListSessions(pb.ListSessionsRequest(page_size=1), **options)
        return len(answer.sessions) <= 1

    async def exported(self, **options: Any) -> bool:
        wanted = questions_pb2.ToolCallFilter(session_id="known")
        request = questions_pb2.ExportToolCallsRequest(filter=wanted)
        answer = await last(self._ledger.ExportToolCalls, request, **options)
        return answer is not None

    async def stream(self, **options: Any) -> bool:
        request = audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=[audit_row(session_id="streams")])
        answer = await last(self._ledger.Record, iter([request]), **options)
        return bool(answer.stored == 1)

    async def prune(self, **options: Any) -> bool:
        request = administration_pb2.PruneRequest(created_before_ms=3_600_000, dry_run=True)
        answer = await last(self._ledger.Prune, request, **options)
        return bool(answer.tool_calls == 0)

    async def create(self, **options: Any) -> bool:
        return bool((await self._gateway.CreateSession(pb.CreateSessionRequest(), **options)).session.id)

    async def turn(self, **options: Any) -> bool:
        event = await last(self._gateway.RunTurn, pb.RunTurnRequest(input="go"), **options)
        return bool(event.turn_finished.stop_reason == pb.STOP_REASON_COMPLETED)


@pytest.mark.long
async def test_under_connections_cut_at_random_answers_are_right_and_nothing_that_acts_runs_twice(tmp_path):
    rng = random.Random(24)
    ended: dict[str, Counter[str]] = {"again": Counter(), "once": Counter()}
    async with serving(tmp_path) as (address, arrived):
        with Proxy(address) as proxy:
            proxy.carries = lambda: rng.randint(*BYTES_OF_A_CONNECTION)
            async with grpc.aio.insecure_channel(address) as straight:
                first = audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=KNOWN)
                await LedgerStub(straight).RecordBatch(first)
            async with (
                grpc.aio.insecure_channel(proxy.address, CLIENT_OPTIONS) as channel,
                AsyncGateway(proxy.address) as gateway,
            ):
                asking = Asking(LedgerStub(channel), gateway.stub)

                async def call(number: int) -> None:
                    kind = rng.choice(("again", "once"))
                    name = f"{kind}-{number}"
                    try:
                        right = await rng.choice(getattr(asking, kind))(metadata=((CALL, name),), timeout=60)
                        assert right, name
                        ended[kind]["right at once" if arrived[name] == 1 else "right after a retry"] += 1
                    except grpc.aio.AioRpcError as error:
                        cut = error.code() is grpc.StatusCode.UNAVAILABLE or error.details() == NOT_WRITTEN
                        ended[kind]["unavailable" if cut else str(error)] += 1
                    assert arrived[name] <= (ATTEMPTS if kind == "again" else 1), name

                async def calls(own: range) -> None:
                    for number in own:
                        await call(number)

                async with asyncio.TaskGroup() as group:
                    for first_number in range(AT_ONCE):
                        group.create_task(calls(range(first_number, CALLS, AT_ONCE)))
        async with grpc.aio.insecure_channel(address) as straight:
            wanted = questions_pb2.ToolCallFilter(session_id="batches")
            request = questions_pb2.ListToolCallsRequest(filter=wanted, page_size=1000)
            stored = await LedgerStub(straight).ListToolCalls(request)
    ids = [record.tool_call.id for record in stored.tool_calls]
    assert set(asking.recorded) <= set(ids)
    outcomes = {"right at once", "right after a retry", "unavailable"}
    assert set(ended["again"]) == outcomes
    assert set(ended["once"]) == outcomes - {"right after a retry"}
