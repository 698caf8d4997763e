"""The service that commands are tried against."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from demo.processes import start_service
from tests.audit_svc.samples import NOW_MS, cost_row, session_row
from tests.audit_svc.terminal.place import SESSION, Place, call


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("terminal")
    database = folder / "audit.db"
    with start_service("audit_svc", {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(database)}, "serve") as service:
        place = Place(service, folder, database)
        place.record(
            producer_id="gateway",
            first=1,
            last=7,
            sessions=[
                session_row(
                    id=SESSION, created_at_ms=NOW_MS - 90_000, labels={"team": "research", "user": "ada"}, tool_calls=3
                )
            ],
            tool_calls=[
                call(1),
                call(2, outcome=common_pb2.OUTCOME_TIMED_OUT, error="it took longer than 120 s", exit_code=None),
                call(3, tool_name="webfetch", outcome=common_pb2.OUTCOME_FAILED, error="\x1b[31mno such host"),
            ],
            model_requests=[
                cost_row(
                    id="cost-1", session_id=SESSION, turn_id="turn-1", cost_micros=1500, created_at_ms=NOW_MS - 70_000
                )
            ],
            controls=[
                audit_pb2.ControlRow(
                    id="stop-1",
                    kind=audit_pb2.CONTROL_KIND_STOP,
                    principal="ops",
                    scope="engine=ollama",
                    reason="it loops",
                    stop_id="1",
                    at_ms=NOW_MS - 59_998,
                ),
                audit_pb2.ControlRow(
                    id="rules-1",
                    kind=audit_pb2.CONTROL_KIND_RULES_LOADED,
                    scope="rules.toml",
                    policy_digest="d" * 64,
                    at_ms=NOW_MS - 200_000,
                ),
            ],
        )
        with closing(sqlite3.connect(database)) as live, closing(sqlite3.connect(folder / "audit-backup.db")) as copy:
            live.backup(copy)
        yield place
