"""A replica that does not write passes what is to be written on, and nobody is believed for who calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.forwarding import PASSED_ON, ForwardingInterceptor
from audit_svc.services import OF_THE_WRITER, RECORD_BATCH, ROLES, LedgerServices, error_interceptor, rules
from audit_svc.sqlite.store import SqliteLedger
from recording.channel.watched import Watched
from service_kit.access.interceptor import AccessInterceptor
from service_kit.access.roles import Role, load_callers, make_token
from service_kit.server import answering, bind, build_server
from tests.audit_svc.empty import write_empty
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub


@dataclass
class Replica:
    """A ledger on a port. writer: None where it is the one that writes, else where that is."""

    writer: str | None = None
    address: str = ""
    server: Any = None
    stub: Any = None
    forwarding: Any = None

    def follow(self, writer: str | None) -> None:
        self.writer = writer
        self.forwarding.writer_changed()


class Replicas:
    """Each with a ledger of its own, so that it shows where a row went."""

    def __init__(self, folder: Path, open_ledger: Callable[..., SqliteLedger], stack: AsyncExitStack) -> None:
        self._folder, self._open_ledger, self._stack = folder, open_ledger, stack
        self._number = 0
        self.callers = folder / "callers.toml"
        self.callers.write_text("")

    async def start(self, *, with_callers: bool = False) -> Replica:
        self._number += 1
        path = self._folder / f"{self._number}.db"
        write_empty(path)
        services = LedgerServices(self._open_ledger(path))
        replica = Replica()
        replica.forwarding = ForwardingInterceptor(OF_THE_WRITER, lambda: replica.writer)
        callers = Watched([self.callers], partial(load_callers, self.callers))
        guards = [AccessInterceptor(rules(), callers)] if with_callers else []
        inner = answering(error_interceptor(), ROLES, (RECORD_BATCH,), guards)
        replica.server = build_server([*inner, replica.forwarding])
        services.add_to(replica.server)
        replica.address = bind(replica.server, "127.0.0.1:0")
        await replica.server.start()
        channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(replica.address))
        replica.stub = LedgerStub(channel)
        self._stack.push_async_callback(services.close)
        self._stack.push_async_callback(replica.server.stop, None)
        self._stack.push_async_callback(replica.forwarding.aclose)
        return replica

    def add(self, name: str, role: Role) -> Any:
        token, table = make_token(name, [role])
        with self.callers.open("a") as file:
            file.write(f"{table}\n")
        return (("authorization", f"Bearer {token}"),)


@pytest.fixture
async def replicas(tmp_path: Path, open_ledger: Callable[..., SqliteLedger]) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        yield Replicas(tmp_path, open_ledger, stack)


async def calls_in(replica: Replica, metadata: Any = None) -> list[Any]:
    answer = await replica.stub.ListToolCalls(questions_pb2.ListToolCallsRequest(), metadata=metadata)
    return list(answer.tool_calls)


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status, info = rpc_status.from_call(refused.value), error_details_pb2.ErrorInfo()  # type: ignore[arg-type] # of aio
    assert status is not None
    assert status.details[0].Unpack(info)
    return refused.value.code(), info.reason, dict(info.metadata)


async def test_what_is_recorded_at_a_standby_is_in_the_writers_ledger_and_acknowledged_by_it(
    replicas: Replicas,
) -> None:
    writer, standby = await replicas.start(), await replicas.start()
    standby.follow(writer.address)
    assert (await standby.stub.RecordBatch(request(audit_row()))).stored == 1
    batches = [request(audit_row(), audit_row()) for _ in range(20)]
    answers = [answer.stored async for answer in standby.stub.Record(iter(batches))]
    assert answers == [2] * 20
    assert len(await calls_in(writer)) == 41
    assert await calls_in(standby) == []
    hold = administration_pb2.PlaceHoldRequest(name="case-1", reason="asked for")
    await standby.stub.PlaceHold(hold)
    assert [held.name for held in (await writer.stub.ListHolds(administration_pb2.ListHoldsRequest())).holds] == [
        "case-1"
    ]


async def test_the_writer_itself_looks_at_what_the_caller_shows(replicas: Replicas) -> None:
    writer, standby = await replicas.start(with_callers=True), await replicas.start(with_callers=True)
    standby.follow(writer.address)
    gateway, reader = replicas.add("gateway-1", Role.PRODUCER), replicas.add("ada", Role.READER)
    await standby.stub.RecordBatch(request(audit_row()), metadata=gateway)
    (row,) = await calls_in(writer, reader)
    assert row.receipt.recorded_by == "gateway-1"
    passed_on = ((PASSED_ON, "1"),)
    code, _, _ = await refusal(writer.stub.RecordBatch(request(audit_row()), metadata=passed_on))
    assert code is grpc.StatusCode.UNAUTHENTICATED, "that a replica passes on shows nothing"
    code, _, _ = await refusal(standby.stub.RecordBatch(request(audit_row()), metadata=reader))
    assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_the_writers_refusals_come_through_whole_after_the_answers_before_them(replicas: Replicas) -> None:
    writer, standby = await replicas.start(), await replicas.start()
    standby.follow(writer.address)
    row = audit_row()
    wrong = request(row)
    wrong.row_version = 2**30
    direct = await refusal(writer.stub.RecordBatch(wrong))
    assert await refusal(standby.stub.RecordBatch(wrong)) == direct
    stream = standby.stub.Record()
    await stream.write(request(row))
    assert (await stream.read()).stored == 1
    await stream.write(wrong)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream.read()
    assert refused.value.code() is direct[0]


async def test_without_a_writer_a_call_is_told_to_come_again(replicas: Replicas) -> None:
    gone, standby = await replicas.start(), await replicas.start()
    unavailable = (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    standby.follow("")
    assert await refusal(standby.stub.RecordBatch(request(audit_row()))) == (*unavailable, {})
    await gone.server.stop(None)
    standby.follow(gone.address)
    at = {"writer": gone.address}
    assert await refusal(standby.stub.RecordBatch(request(audit_row()))) == (*unavailable, at)


async def test_no_call_goes_in_circles(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    first.follow(second.address)
    second.follow(first.address)
    code, reason, _ = await refusal(first.stub.RecordBatch(request(audit_row())))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")


async def test_a_stream_ends_when_another_replica_writes_and_the_next_goes_there(replicas: Replicas) -> None:
    first, second, standby = [await replicas.start() for _ in range(3)]
    standby.follow(first.address)
    stream = standby.stub.Record()
    await stream.write(request(audit_row()))
    assert (await stream.read()).stored == 1
    standby.follow(second.address)
    code, _, _ = await refusal(stream.read())
    assert code is grpc.StatusCode.UNAVAILABLE
    assert (await standby.stub.RecordBatch(request(audit_row()))).stored == 1
    assert len(await calls_in(second)) == 1
    standby.follow(None)
    assert (await standby.stub.RecordBatch(request(audit_row()))).stored == 1
    assert len(await calls_in(standby)) == 1


async def test_a_call_that_is_cancelled_ends_at_the_writer_too(replicas: Replicas) -> None:
    writer, standby = await replicas.start(), await replicas.start()
    standby.follow(writer.address)
    stream = standby.stub.Record()
    await stream.write(request(audit_row()))
    assert (await stream.read()).stored == 1
    stream.cancel()
    async with asyncio.timeout(60):
        await writer.server.stop(3600)  # waits for calls under way
