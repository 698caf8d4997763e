"""How long nobody takes rows when the replica that writes is killed: from SIGKILL to the other's first ack."""

import time
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc

from bench.figures import Figure, Target, percentile
from bench.postgres.services import start_replica
from bench.rows import make_rows
from demo.postgres import PostgresServer
from demo.processes import Service
from recording.channel.options import DIRECT
from recording.row_version import ROW_VERSION

TARGET = Target(max_ours=5.0)
_PAUSE_SECONDS = 0.01
_TRY_SECONDS = 0.5
_WRITER = "writer"
"""The name by which a replica's health says that it is the one that writes."""


def measure(place: Path, server: PostgresServer, *, short: bool) -> list[Figure]:
    """The figures of as many kills, after each of which the killed one comes back as a standby."""
    url = server.create_database("failover")
    replicas = [start_replica(url), start_replica(url)]
    took = []
    try:
        for _ in range(5 if short else 100):
            writer, standby = sorted(replicas, key=_writes, reverse=True)
            with grpc.insecure_channel(standby.address, DIRECT) as channel:
                _store(channel)
                killed = time.perf_counter()
                writer.kill()
                while not _store(channel):
                    time.sleep(_PAUSE_SECONDS)
                took.append(time.perf_counter() - killed)
            writer.__exit__(None, None, None)
            replicas = [standby, start_replica(url)]
    finally:
        for replica in replicas:
            replica.__exit__(None, None, None)
    name = "the writer killed, until the other acks a row"
    return [
        Figure(f"failover: {name}, p50", "s", percentile(took, 50)),
        Figure(f"failover: {name}, p99", "s", percentile(took, 99), target=TARGET),
    ]


def _writes(replica: Service) -> bool:
    with grpc.insecure_channel(replica.address, DIRECT) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=_WRITER), timeout=10, wait_for_ready=True)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _store(channel: grpc.Channel) -> bool:
    """Whether a row was stored."""
    request = audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=list(make_rows(1)))
    try:
        audit_pb2_grpc.AuditServiceStub(channel).RecordBatch(request, timeout=_TRY_SECONDS)
    except grpc.RpcError:
        return False
    return True
