"""A drain under load: all that was committed while a client listened is answered before its stream ends."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc

from audit_svc import servicer
from audit_svc.errors import StoreClosed
from audit_svc.servicer import AuditServicer
from audit_svc.services import LedgerServices, error_interceptor
from demo.processes import start_service
from service_kit.server import bind, build_server
from tests.audit_svc.patient_service import LAST_ANSWERS_SECONDS
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.test_process import PATIENT, found

STREAMS = 8
GRACE_SECONDS = 30.0


class Producer:
    """Writes batches of fifty rows on one stream as fast as it is let, and reads the answers beside, to their end."""

    def __init__(self, name: str) -> None:
        self.acknowledged: list[str] = []
        self.status: grpc.StatusCode | None = None
        self._name = name
        self._sent: list[list[str]] = []

    async def run(self, address: str) -> None:
        # Without a pool of its own, all would share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            call = audit_pb2_grpc.AuditServiceStub(channel).Record()
            writing = asyncio.create_task(self._write(call))
            try:
                while isinstance(response := await call.read(), audit_pb2.RecordResponse):
                    self.acknowledged.extend(self._sent[response.range.last - 1])
            except grpc.aio.AioRpcError as error:
                self.status = error.code()
            writing.cancel()
            await asyncio.wait([writing])

    async def _write(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                rows = [audit_row() for _ in range(50)]
                self._sent.append([row.id for row in rows])
                await call.write(request(*rows, producer_id=self._name, last=len(self._sent)))


@contextlib.asynccontextmanager
async def producers(address: str) -> AsyncIterator[list[Producer]]:
    """Some that all have been answered; in the end, all have come to theirs."""
    sending = [Producer(f"p{number}") for number in range(STREAMS)]
    async with asyncio.TaskGroup() as tasks:
        for producer in sending:
            tasks.create_task(producer.run(address))
        while not all(producer.acknowledged for producer in sending):
            await asyncio.sleep(0.001)
        yield sending


def assert_all_committed_is_answered(database: Path, sent: list[Producer]) -> None:
    acknowledged = [row for producer in sent for row in producer.acknowledged]
    assert sorted(found(database)) == sorted(acknowledged)
    assert None not in {producer.status for producer in sent}


@pytest.mark.long
@pytest.mark.parametrize("queue_rows", [50_000, 200], ids=["room", "full queue"])
async def test_a_drain_at_any_moment_answers_all_that_it_commits(tmp_path, monkeypatch, queue_rows, open_ledger):
    monkeypatch.setattr(servicer, "_LAST_ANSWERS_SECONDS", LAST_ANSWERS_SECONDS)
    for round_ in range(3):
        database = tmp_path / f"{round_}.db"
        store = open_ledger(database, queue_rows=queue_rows)
        server = build_server([error_interceptor()])
        services = LedgerServices(store)
        services.add_to(server)
        address = bind(server, "127.0.0.1:0")
        await server.start()
        async with producers(address) as sent:
            await asyncio.sleep(random.uniform(0, 0.1))
            services.begin_drain()
            await server.stop(GRACE_SECONDS)
        await services.close()
        await store.close()
        assert_all_committed_is_answered(database, sent)


async def test_a_stream_whose_reading_has_not_begun_ends_at_once(tmp_path, open_ledger):
    async def requests() -> AsyncIterator[audit_pb2.RecordRequest]:
        yield request(audit_row())

    store = open_ledger(tmp_path / "audit.db", queue_rows=50_000)
    audit = AuditServicer(store)
    context: Any = None
    answers = audit.Record(requests(), context)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0)  # the stream waits for a commit, and what reads it has had no turn
    audit.begin_drain()
    with pytest.raises(StoreClosed):
        await asyncio.wait_for(first, GRACE_SECONDS)
    await store.close()


@pytest.mark.long
async def test_sigterm_answers_all_that_it_commits(tmp_path):
    database = tmp_path / "audit.db"
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DRAIN_SECONDS": str(GRACE_SECONDS)}
    with start_service(PATIENT, settings, "serve") as service:
        async with producers(service.address) as sent:
            assert await asyncio.to_thread(service.terminate, 2 * GRACE_SECONDS) == 0
        assert_all_committed_is_answered(database, sent)
