"""A service with a few sessions in its ledger, for commands."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc

from demo.processes import REPOSITORY, Service
from tests.audit_svc.samples import NOW_MS, audit_row, record_request
from tests.support.forked import run_command

SESSION = "01900000-0000-7000-8000-00000000cafe"


def no_session(*where: str) -> str:
    """What is said of a session that is not on record. where: the option that has named the ledger."""
    return (
        f"the ledger has no session with this id: `{' '.join(['audit-svc sessions', *where])}` lists those that it has"
    )


@dataclass
class Place:
    """A service with a few sessions in its ledger, and a folder to type commands in."""

    service: Service
    folder: Path
    database: Path

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "audit_svc", *args]

    @property
    def env(self) -> dict[str, str]:
        paths = f"{REPOSITORY}:{REPOSITORY / 'protos'}"
        ledger = {"AUDIT_LISTEN": self.service.address, "AUDIT_DB": str(self.database)}
        return {"PATH": "/usr/bin:/bin", "PYTHONPATH": paths, "COLUMNS": "240", **ledger}

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run_command("audit_svc", self.env, *args, folder=self.folder)

    def json(self, *args: str) -> list[dict[str, Any]]:
        ran = self.run(*args, "--json")
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def record(self, **rows: Any) -> None:
        with grpc.insecure_channel(self.service.address) as channel:
            response = audit_pb2_grpc.AuditServiceStub(channel).RecordBatch(record_request(**rows))
        assert not response.rejections


def call(number: int, **fields: Any) -> audit_pb2.AuditRow:
    return audit_row(
        **{
            "id": f"call-{number}",
            "session_id": SESSION,
            "turn_id": "turn-1",
            "tool_name": "bash",
            "args_summary": '{"command":"git push"}',
            "created_at_ms": NOW_MS - 60_000 + number,
            **fields,
        }
    )
