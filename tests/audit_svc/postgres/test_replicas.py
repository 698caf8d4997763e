"""Two audit services on one PostgreSQL: a client may talk to either."""

import random
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import administration_pb2, questions_pb2

from recording.channel.options import DIRECT
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub
from tests.faults.replicas.replica import Replica
from tests.faults.replicas.world import ReplicasWorld
from tests.faults.world import wait_for

pytestmark = pytest.mark.postgres


@pytest.fixture
def world() -> Iterator[ReplicasWorld]:
    with ReplicasWorld(random.Random(0)) as world:
        world.start()
        yield world


@pytest.fixture
def ask(world: ReplicasWorld) -> Iterator[Any]:
    """A stub of a replica."""
    channels = []

    def stub_of(replica: Replica) -> LedgerStub:
        channels.append(grpc.insecure_channel(replica.address, DIRECT))
        return LedgerStub(channels[-1])

    yield stub_of
    for channel in channels:
        channel.close()


def listed(stub: LedgerStub, **fields: Any) -> Any:
    return stub.ListToolCalls(questions_pb2.ListToolCallsRequest(**fields), timeout=60)


def record(stub: LedgerStub, rows: int = 1) -> int:
    """Sends rows until they are taken, as producers do."""
    batch = request(*[audit_row() for _ in range(rows)])

    def taken() -> bool:
        try:
            answer = stub.RecordBatch(batch, timeout=10)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            return False
        assert answer.stored + answer.duplicates == rows
        return True

    wait_for(taken, "the rows are not taken")
    return rows


def test_what_one_replica_has_acknowledged_the_other_answers(world: ReplicasWorld, ask: Any) -> None:
    writer, standby = world.writer(), world.standby()
    for replica in (writer, standby):
        wait_for(replica.serves, f"{replica.name} does not serve")
    assert not standby.serves("writer")
    record(ask(standby), 3)
    assert len(listed(ask(standby)).tool_calls) == len(listed(ask(writer)).tool_calls) == 3
    page = listed(ask(writer), page_size=2)
    assert len(listed(ask(standby), page_size=2, page_token=page.next_page_token).tool_calls) == 1


def test_questions_at_either_replica_are_on_the_record(world: ReplicasWorld, ask: Any) -> None:
    for replica in (world.writer(), world.standby()):
        listed(ask(replica), filter={"engine": replica.name})
    stub = ask(world.writer())

    def told() -> set[str]:
        rows = stub.ListQueries(administration_pb2.ListQueriesRequest(), timeout=60).queries
        return {replica.name for replica in world.replicas if any(replica.name in row.filters for row in rows)}

    wait_for(lambda: told() == {replica.name for replica in world.replicas}, "a question is not on the record")


def test_a_connection_to_one_replica_is_enough_whichever_ends(world: ReplicasWorld, ask: Any) -> None:
    """The stub of each stays the same, as that of a producer behind a balancer."""
    writer, standby = world.writer(), world.standby()
    stubs = {replica.name: ask(replica) for replica in world.replicas}
    rows = record(stubs[standby.name], 2)
    writer.kill()
    rows += record(stubs[standby.name], 2)
    assert world.writer() is standby
    writer.start()
    rows += record(stubs[writer.name], 2)
    standby.stop()
    rows += record(stubs[writer.name], 2)
    assert len(listed(stubs[writer.name]).tool_calls) == rows


def test_logs_and_metrics_tell_the_store_and_the_part_and_no_password(world: ReplicasWorld) -> None:
    writer, standby = world.writer(), world.standby()
    wait_for(lambda: "writership.began" in writer.log and "writership.standby" in standby.log, "the log does not tell")
    assert [_writer_of(replica) for replica in (writer, standby)] == [1.0, 0.0]
    for replica in world.replicas:
        assert replica.password not in replica.log


def _writer_of(replica: Replica) -> float:
    with urllib.request.urlopen(f"http://{replica.metrics_address}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith('onrecord_ledger_writer{store="postgres"}')]
    return float(line.split()[1])
