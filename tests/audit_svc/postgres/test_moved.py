"""A ledger that real services serve moves to PostgreSQL and back: to its producers and witnesses it is one log."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from demo.processes import Service, run_command, start_service
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub

pytestmark = pytest.mark.postgres
BATCH = 100


def serve(database: str | Path, key: Path) -> Any:
    settings = {
        "AUDIT_DB": str(database),
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_SEAL_SECONDS": "0.1",
        "AUDIT_SEAL_KEY_FILE": str(key),
    }
    return start_service("audit_svc", settings, "serve")


def record(service: Service, numbers: range) -> None:
    """Batches of one producer, which go on wherever the ledger is."""
    with grpc.insecure_channel(service.address) as channel:
        stub = LedgerStub(channel)
        for number in numbers:
            rows = [audit_row() for _ in range(BATCH)]
            stub.RecordBatch(request(*rows, last=number * BATCH + 1), wait_for_ready=True, timeout=60)


def said(*command: str) -> str:
    done = run_command("audit_svc", {}, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kept_checkpoint(service: Service, batches: int, place: Path) -> None:
    """Waits until all rows of so many batches are sealed, and keeps what the service says, as a witness does."""
    from onrecord.audit.v1 import proof_pb2, proof_pb2_grpc

    with grpc.insecure_channel(service.address) as channel:
        stub, deadline, before = proof_pb2_grpc.ProofServiceStub(channel), time.monotonic() + 60, ""
        while time.monotonic() < deadline:
            try:
                note = stub.GetCheckpoint(proof_pb2.GetCheckpointRequest(), timeout=30).note
            except grpc.RpcError:  # nothing is sealed yet
                note = ""
            if note and note == before and int(note.splitlines()[1]) >= batches * BATCH:
                place.write_text(note)
                return
            before = note
            time.sleep(1)
    pytest.fail("the log never came to rest")


def test_a_served_ledger_moves_and_comes_back(postgres_database: str, tmp_path: Path):
    file, key = tmp_path / "audit.db", tmp_path / "key"
    checkpoints = [tmp_path / f"checkpoint-{n}" for n in range(3)]
    with serve(file, key) as service:
        record(service, range(3))
        kept_checkpoint(service, 3, checkpoints[0])
        assert service.terminate() == 0
    assert "counts and sums are alike" in said("copy", "--from", str(file), "--to", postgres_database)
    with serve(postgres_database, key) as service:
        record(service, range(3, 5))
        kept_checkpoint(service, 5, checkpoints[1])
        options = ("--key", str(key.with_name("key.pub")), "--old-checkpoint", str(checkpoints[0]))
        assert "20 as they were sealed" in said("verify", "--target", service.address, *options)
        served = run_command("audit_svc", {}, "copy", "--from", postgres_database, "--to", str(tmp_path / "no.db"))
        assert (served.returncode, "stop all of them first" in served.stderr) == (1, True)
        assert service.terminate() == 0
    back = tmp_path / "back.db"
    said("copy", "--from", postgres_database, "--to", str(back))
    with serve(back, key) as service:
        record(service, range(5, 6))
        kept_checkpoint(service, 6, checkpoints[2])
        assert service.terminate() == 0
    old = [option for each in checkpoints for option in ("--old-checkpoint", str(each))]
    told = said("verify", "--db", str(back), "--key", str(key.with_name("key.pub")), *old)
    assert "0 lost by restores" in told
    assert int(told.partition("rows   ")[2].split()[0]) >= 6 * BATCH
    assert not (tmp_path / "no.db").exists()
