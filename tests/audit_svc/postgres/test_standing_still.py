"""A server that stands still, with connections that stay: nobody waits for it for ever, and all goes on later."""

import asyncio
import random
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import questions_pb2

from audit_svc.errors import StoreUnavailable
from audit_svc.postgres.store import PostgresLedger
from audit_svc.postgres.write import writer as writing
from demo.postgres import PostgresServer
from recording.channel.options import DIRECT
from tests.audit_svc.samples import audit_row, batch, request
from tests.audit_svc.stubs import LedgerStub
from tests.faults.replicas.world import ReplicasWorld
from tests.faults.world import wait_for
from tests.support.postgres import standing_still

pytestmark = pytest.mark.postgres


async def test_a_writer_that_nobody_watches_over_is_cut_off_and_goes_on(
    postgres_server: PostgresServer, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "STUCK_SECONDS", 0.2)
    ledger = PostgresLedger.open(postgres_database, queue_rows=1000)
    row = audit_row()
    await ledger.record(batch(audit_row()))
    with standing_still(postgres_server):
        waiting = asyncio.ensure_future(ledger.record(batch(row)))
        while not waiting.done():
            await asyncio.sleep(0.1)
            ledger.cut_stuck()
        with pytest.raises(StoreUnavailable):
            await waiting
    answer = await ledger.record(batch(row))
    assert answer.stored + answer.duplicates == 1
    await ledger.close()


async def test_a_statement_that_waits_for_somebodys_lock_is_ended(
    migrated: Any, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "STATEMENT_SECONDS", 0.2)
    ledger = PostgresLedger.open(postgres_database, queue_rows=1000)
    with migrated.raw.transaction():
        migrated.execute("LOCK TABLE tool_call_log")
        with pytest.raises(StoreUnavailable):
            await ledger.record(batch(audit_row()))
    assert (await ledger.record(batch(audit_row()))).stored == 1
    await ledger.close()


@pytest.mark.long
def test_a_service_refuses_rows_while_the_server_stands_still_and_takes_them_afterwards() -> None:
    with ReplicasWorld(random.Random(0)) as world:
        world.start()
        writer = world.writer()
        with grpc.insecure_channel(writer.address, DIRECT) as channel:
            stub = LedgerStub(channel)
            rows = [audit_row() for _ in range(3)]
            assert stub.RecordBatch(request(rows[0]), timeout=60).stored == 1
            with standing_still(world.server):
                for row in rows[1:]:
                    with pytest.raises(grpc.RpcError) as refused:
                        stub.RecordBatch(request(row), timeout=60)
                    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                wait_for(lambda: not writer.serves("writer"), "it says that it writes")
            writer = world.writer()

            def taken() -> bool:
                try:
                    answer = stub.RecordBatch(request(*rows), timeout=60)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    return False
                return bool(answer.stored + answer.duplicates == len(rows))

            wait_for(taken, "rows are not taken again")
            assert len(stub.ListToolCalls(questions_pb2.ListToolCallsRequest(), timeout=60).tool_calls) == len(rows)
            # one that ends while the server stands still waits for it no longer than for what it has under way
            with standing_still(world.server):
                for replica in world.replicas:
                    replica.stop()
