"""The ledger says whether it can commit, and the probes of containers tell it by their exit code."""

from contextlib import suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, run_command, start_service


def probe(service: Service, *args: str) -> tuple[int, str]:
    ran = run_command("audit_svc", {}, "health", "--timeout", "30", "--target", service.address, *args)
    return ran.returncode, (ran.stdout or ran.stderr).strip().rpartition(" ")[2]


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
    assert probe(audit) == (1, "UNAVAILABLE")
    assert probe(audit, "--live") == (1, "UNAVAILABLE")
