"""The ledger says whether it can commit, and the probes of containers tell it by their exit code."""

import shutil
from contextlib import suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, run_command, start_service
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub


def probe(service: Service, *args: str) -> tuple[int, str]:
    ran = run_command("audit_svc", {}, "health", "--timeout", "30", "--target", service.address, *args)
    return ran.returncode, (ran.stdout or ran.stderr).strip().removeprefix(f"{service.address}: ").partition(":")[0]


def watch_until(service: Service, name: str, status: int) -> None:
    with grpc.insecure_channel(service.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30):
            if answer.status == status:
                return


@pytest.mark.long
def test_the_ledger_serves_while_it_can_commit(small_disk):
    env = {
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_DB": str(small_disk / "audit.db"),
        "AUDIT_HEALTH_SECONDS": "0.1",
    }
    ballast = small_disk / "ballast"
    with start_service("audit_svc", env, "serve") as audit:
        watch_until(audit, "", health_pb2.HealthCheckResponse.SERVING)
        assert probe(audit) == (0, "SERVING")
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        watch_until(audit, "onrecord.audit.v1.AuditService", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert probe(audit) == (1, "NOT_SERVING")
        assert probe(audit, "--live") == (0, "NOT_SERVING")
        ballast.unlink()
        watch_until(audit, "", health_pb2.HealthCheckResponse.SERVING)
        assert probe(audit) == (0, "SERVING")
    assert probe(audit) == (1, "nobody listens on 127.0.0.1")
    assert probe(audit, "--live") == (1, "nobody listens on 127.0.0.1")


@pytest.mark.long
def test_a_commit_that_failed_counts_for_health_at_once(small_disk):
    """The check itself would be asked hours later, and writes so little that it may find room."""
    env = {
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_DB": str(small_disk / "audit.db"),
        "AUDIT_HEALTH_SECONDS": "10000",
    }
    ballast = small_disk / "ballast"
    with start_service("audit_svc", env, "serve") as audit, grpc.insecure_channel(audit.address) as channel:
        stub = LedgerStub(channel)
        watch_until(audit, "", health_pb2.HealthCheckResponse.SERVING)
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while shutil.disk_usage(small_disk).free > 65536 and file.write(bytes(4096)):
                pass
        rows = [audit_row(args_summary="x" * 4000) for _ in range(200)]
        with pytest.raises(grpc.RpcError) as refusal:
            stub.RecordBatch(request(*rows), timeout=30)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        watch_until(audit, "", health_pb2.HealthCheckResponse.NOT_SERVING)
        ballast.unlink()
        watch_until(audit, "", health_pb2.HealthCheckResponse.SERVING)
        assert stub.RecordBatch(request(*rows), timeout=30).stored == 200
