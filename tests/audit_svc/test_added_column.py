"""A new column is a line in the proto, a line among the columns and a migration: nothing else has to know it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2

from audit_svc.sqlite.open.migrate import load_migrations
from demo.processes import REPOSITORY, run_command

ROW = audit_pb2.AuditRow.DESCRIPTOR
NEEDED = ("audit_svc", "recording", "service_kit", "protos", "demo", "tests/audit_svc/samples.py")

RECORD = """
import json, sys

import grpc
from demo.processes import run_command, start_service
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc
from tests.audit_svc.samples import audit_row, request, session_row

database = {"AUDIT_DB": sys.argv[1]}
with start_service("audit_svc", {**database, "AUDIT_LISTEN": "127.0.0.1:0"}, "serve") as service:
    with grpc.insecure_channel(service.address) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        rows = [audit_row(id="told", host="build-7"), audit_row(id="untold"), audit_row(id="long", host="x" * 65)]
        answer = stub.RecordBatch(request(*rows, sessions=[session_row()]), wait_for_ready=True, timeout=60)
        listed = stub.ListToolCalls(questions_pb2.ListToolCallsRequest(), timeout=60).rows

    def printed(*command):
        ran = run_command("audit_svc", {"AUDIT_LISTEN": service.address}, *command)
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    json.dump({
        "refused": [(refused.id, refused.message) for refused in answer.rejections],
        "listed": {row.id: row.host for row in listed},
        "exported": {row["id"]: row["host"] for row in printed("export", "--format", "jsonl")},
        "shown": {e["tool_call"]["id"]: e["tool_call"]["host"] for e in printed("show", "session-1", "--json")
                  if e.get("tool_call")},
    }, sys.stdout)
    assert service.terminate() == 0
"""


def insert_before_end(file: Path, begin: str, end: str, line: str) -> None:
    """Puts a line before the first line `end` that follows the line `begin`."""
    text, count = re.subn(
        rf"(^{re.escape(begin)}\n.*?)^{re.escape(end)}\n",
        lambda found: f"{found[1]}{line}\n{end}\n",
        file.read_text(),
        count=1,
        flags=re.MULTILINE | re.DOTALL,
    )
    assert count == 1
    file.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the ledger, with a column more by the three edits that CONTRIBUTING.md names."""
    root = tmp_path / "tree"
    for name in NEEDED:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    number = max(field.number for field in ROW.fields) + 1
    version = load_migrations()[-1].version + 1
    protos = root / "protos" / ROW.file.name
    insert_before_end(protos, f"message {ROW.name} {{", "}", f"  string host = {number};")
    columns = root / "audit_svc/ledger/batch.py"
    insert_before_end(columns, "TOOL_CALL_COLUMNS: tuple[Column, ...] = (", ")", '    Text("host", limit=64),')
    migration = root / f"audit_svc/sqlite/migrations/{version:04d}_host"
    migration.with_suffix(".up.sql").write_text("ALTER TABLE tool_call_log ADD COLUMN host TEXT NOT NULL DEFAULT '';\n")
    migration.with_suffix(".down.sql").write_text("ALTER TABLE tool_call_log DROP COLUMN host;\n")
    subprocess.run([sys.executable, root / "protos/generate.py"], check=True, timeout=120)
    return root


@pytest.mark.long
def test_a_column_is_three_edits(tree, tmp_path):
    """The new field is migrated to, recorded over gRPC, checked, stored, listed, exported and shown; and taken back."""
    database = tmp_path / "audit.db"
    before = run_command("audit_svc", {"AUDIT_DB": str(database)}, "migrate", "up")
    assert before.returncode == 0, before.stderr

    def run(*command: str) -> str:
        paths = os.pathsep.join([str(tree), str(tree / "protos")])
        environment = {**os.environ, "PYTHONPATH": paths, "AUDIT_DB": str(database)}
        ran = subprocess.run(
            [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    run("-m", "audit_svc", "migrate", "up")
    found = json.loads(run("-c", RECORD, str(database)))
    told = {"told": "build-7", "untold": ""}
    assert found == {
        "refused": [["long", "host is longer than 64 characters"]],
        "listed": told,
        "exported": told,
        "shown": told,
    }
    run("-m", "audit_svc", "migrate", "down", "--to", str(load_migrations()[-1].version))
    after = run_command("audit_svc", {"AUDIT_DB": str(database)}, "migrate", "status")
    assert after.returncode == 0, after.stderr
    assert "pending" not in after.stdout
