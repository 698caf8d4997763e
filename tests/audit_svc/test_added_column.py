"""A new column is a line in the proto, a line among the columns and a migration: nothing else has to know it."""

import json
from pathlib import Path

import pytest

from audit_svc.sqlite.open.migrate import load_migrations
from demo.processes import run_command
from tests.support.newer_tree import make_newer_tree, run_in

RECORD = """
import json, sys

import grpc
from demo.processes import run_command, start_service
from onrecord.audit.v1 import questions_pb2
from tests.audit_svc.samples import audit_row, request, session_row
from tests.audit_svc.stubs import LedgerStub

database = {"AUDIT_DB": sys.argv[1]}
with start_service("audit_svc", {**database, "AUDIT_LISTEN": "127.0.0.1:0"}, "serve") as service:
    with grpc.insecure_channel(service.address) as channel:
        stub = LedgerStub(channel)
        rows = [audit_row(id="told", host="build-7"), audit_row(id="untold"), audit_row(id="long", host="x" * 65)]
        answer = stub.RecordBatch(request(*rows, sessions=[session_row()]), wait_for_ready=True, timeout=60)
        listed = stub.ListToolCalls(questions_pb2.ListToolCallsRequest(), timeout=60).tool_calls

    def printed(*command):
        ran = run_command("audit_svc", {"AUDIT_LISTEN": service.address}, *command)
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    entries = printed("show", "session-1", "--json")
    shown = [entry["tool_call"] for entry in entries if entry.get("tool_call")]
    json.dump({
        "refused": [(refused.id, refused.message) for refused in answer.rejections],
        "listed": {record.tool_call.id: record.tool_call.host for record in listed},
        "exported": {row["id"]: row["host"] for row in printed("export", "--format", "jsonl")},
        "shown": {row["id"]: row["host"] for row in shown},
    }, sys.stdout)
    assert service.terminate() == 0
"""


@pytest.mark.long
def test_a_column_is_three_edits(tmp_path: Path) -> None:
    """The new field is migrated to, recorded over gRPC, checked, stored, listed, exported and shown; and taken back."""
    tree = make_newer_tree(tmp_path / "tree")
    database = tmp_path / "audit.db"
    before = run_command("audit_svc", {"AUDIT_DB": str(database)}, "migrate", "up")
    assert before.returncode == 0, before.stderr

    run_in(tree, "-m", "audit_svc", "migrate", "up", AUDIT_DB=str(database))
    found = json.loads(run_in(tree, "-c", RECORD, str(database), AUDIT_DB=str(database)))
    told = {"told": "build-7", "untold": ""}
    assert found == {
        "refused": [["long", "host is longer than 64 characters"]],
        "listed": told,
        "exported": told,
        "shown": told,
    }
    back = str(load_migrations()[-1].version)
    run_in(tree, "-m", "audit_svc", "migrate", "down", "--to", back, AUDIT_DB=str(database))
    after = run_command("audit_svc", {"AUDIT_DB": str(database)}, "migrate", "status")
    assert after.returncode == 0, after.stderr
    assert "pending" not in after.stdout
