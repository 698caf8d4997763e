"""The ledger as the process that it is in production: started, refused, killed, terminated, asked."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from onrecord.audit.v1 import audit_pb2

from audit_svc.settings import AuditSettings
from audit_svc.sqlite.open.connection import open_for_writing
from demo.processes import Service, ServiceEnded, run_command, start_service
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub

MODULE = "audit_svc"
PATIENT = "tests.audit_svc.patient_service"


def serve(database: Path, *args: str) -> Service:
    return start_service(MODULE, {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0"}, "serve", *args)


def run(database: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run_command(MODULE, {"AUDIT_DB": str(database)}, *args)


def record(service: Service, *rows: audit_pb2.AuditRow) -> audit_pb2.RecordResponse:
    with grpc.insecure_channel(service.address) as channel:
        stub = LedgerStub(channel)
        response: audit_pb2.RecordResponse = stub.RecordBatch(request(*rows), wait_for_ready=True, timeout=30)
        return response


def found(database: Path) -> list[str]:
    """The ids in the file, once nobody has it open, after a check of its integrity."""
    connection = open_for_writing(database)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ids = [str(row[0]) for row in connection.execute("SELECT id FROM tool_call_log")]
    connection.close()
    return ids


class Sender(threading.Thread):
    """Streams batches of fifty rows, and notes the ids of those that were acknowledged, until the stream ends."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.address = service.address
        self.acknowledged: list[str] = []
        self.status: grpc.StatusCode | None = None
        self._sent: list[list[str]] = []

    def _requests(self) -> Iterator[audit_pb2.RecordRequest]:
        while True:
            rows = [audit_row() for _ in range(50)]
            self._sent.append([row.id for row in rows])
            yield request(*rows, producer_id="sender", last=len(self._sent))

    def run(self) -> None:
        with grpc.insecure_channel(self.address) as channel:
            stub = LedgerStub(channel)
            try:
                for response in stub.Record(self._requests()):
                    self.acknowledged.extend(self._sent[response.range.last - 1])
            except grpc.RpcError as error:
                self.status = error.code()

    def wait_for(self, rows: int) -> None:
        while len(self.acknowledged) < rows:
            time.sleep(0.005)


@pytest.mark.long
def test_an_acknowledged_row_survives_kill_9_and_is_there_once(tmp_path):
    database = tmp_path / "audit.db"
    acknowledged: list[str] = []
    for round_ in range(3):
        with serve(database) as service:
            sender = Sender(service)
            sender.start()
            sender.wait_for(1000 * (round_ + 1))
            service.kill()
            sender.join()
            acknowledged.extend(sender.acknowledged)
    ids = found(database)
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)


@pytest.mark.long
def test_sigterm_answers_what_was_taken_and_ends_with_exit_code_0(tmp_path):
    database = tmp_path / "audit.db"
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DRAIN_SECONDS": "30"}
    with start_service(PATIENT, settings, "serve") as service:
        sender = Sender(service)
        sender.start()
        sender.wait_for(1000)
        assert service.terminate(60) == 0
        sender.join()
        events = [event for event in ("draining", "stopped") if f"service.{event}" in service.stderr_text()]
    assert events == ["draining", "stopped"]
    assert sender.status == grpc.StatusCode.UNAVAILABLE
    assert sorted(found(database)) == sorted(sender.acknowledged)


@pytest.mark.long
def test_a_second_process_on_the_same_file_is_refused_and_says_who_holds_it(tmp_path):
    with serve(tmp_path / "audit.db") as first:
        with pytest.raises(ServiceEnded, match=f"exit code 1\n(.|\n)*process {first.pid} has the database"):
            serve(tmp_path / "audit.db")
        refused = run(tmp_path / "audit.db", "migrate", "down", "--to", "0")
        assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
        first.kill()
        with serve(tmp_path / "audit.db") as second:
            assert record(second, audit_row()).stored == 1


@pytest.mark.long
def test_no_migrate_refuses_until_the_command_that_it_names_was_run(tmp_path):
    database = tmp_path / "audit.db"
    with pytest.raises(ServiceEnded, match=r"exit code 1\n(.|\n)*run `audit-svc migrate up --db"):
        serve(database, "--no-migrate")
    assert run(database, "migrate", "up").stdout.splitlines()[0] == "applied 0001_sessions"
    with serve(database, "--no-migrate") as service:
        assert record(service, audit_row()).stored == 1
        assert service.terminate() == 0


@pytest.mark.long
def test_the_migrate_commands_tell_what_they_do(tmp_path):
    database = tmp_path / "audit.db"
    assert run(database, "migrate", "status").returncode == 1
    assert run(database, "migrate", "up").returncode == 0
    assert run(database, "migrate", "up").stdout == "nothing is pending\n"
    undone = run(database, "migrate", "down", "--to", "8")
    assert undone.stdout.splitlines()[-1] == "undone 0009_ledger"
    status = run(database, "migrate", "status")
    assert status.returncode == 0
    states = {line.split()[0]: line.split()[2] for line in status.stdout.splitlines() if line[:1].isdigit()}
    assert (states["0007"], states["0008"], states["0009"]) == ("applied", "applied", "pending")
    other = tmp_path / "other.db"
    assert run_command(MODULE, {}, "migrate", "up", "--db", str(other)).returncode == 0
    assert other.exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 7", "0007_tool_call_log was edited"),
        ("INSERT INTO schema_migrations VALUES (9999, 'future', 'x', 0)", "9999_future, which this version"),
        ("DROP INDEX idx_tool_call_log_error", "the database is dirty: index idx_tool_call_log_error is missing"),
    ],
    ids=["edited", "newer", "dirty"],
)
def test_a_schema_that_is_not_what_the_code_knows_is_refused_by_service_and_command(tmp_path, change, sentence):
    database = tmp_path / "audit.db"
    run(database, "migrate", "up")
    connection = open_for_writing(database)
    connection.execute(change)
    connection.close()
    with pytest.raises(ServiceEnded, match=f"exit code 1\n(.|\n)*{sentence}"):
        serve(database)
    refused = run(database, "migrate", "status")
    assert (refused.returncode, sentence in refused.stderr) == (1, True)


@pytest.mark.long
def test_a_damaged_database_is_refused(tmp_path):
    database = tmp_path / "audit.db"
    database.write_bytes(b"\x00garbage" * 1000)
    with pytest.raises(ServiceEnded, match=r"exit code 1\n(.|\n)*restore a backup"):
        serve(database)


@pytest.mark.long
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AUDIT_QUEUE_ROWS", "few"),
        ("AUDIT_LISTEN", "nowhere"),
        ("AUDIT_LOG_LEVEL", "loud"),
        ("AUDIT_DRAIN_SECONDS", "-1"),
    ],
)
def test_a_wrong_setting_ends_with_exit_code_2_and_names_the_variable(tmp_path, variable, value):
    ended = run_command(MODULE, {"AUDIT_DB": str(tmp_path / "a.db"), variable: value}, "serve")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{variable}: ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.long
def test_health_tells_by_its_exit_code_whether_the_service_serves(tmp_path):
    with serve(tmp_path / "audit.db") as service:
        serving = run_command(MODULE, {"AUDIT_LISTEN": service.address}, "health", "--timeout", "30")
        assert (serving.returncode, serving.stdout) == (0, f"{service.address}: SERVING\n")
        assert service.terminate() == 0
        stopped = run_command(MODULE, {}, "health", "--target", service.address)
        assert stopped.returncode == 1
        assert stopped.stderr.startswith(f"nobody listens on {service.address}: is an ")


@pytest.mark.long
def test_the_settings_are_told_in_one_line_at_the_start(tmp_path):
    with serve(tmp_path / "audit.db") as service:
        (line,) = [line for line in service.stderr_text().splitlines() if "service.starting" in line]
        assert str(tmp_path / "audit.db") in line


@pytest.mark.long
def test_the_console_script_is_the_same_program():
    script = Path(sys.executable).with_name("audit-svc")
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert all(command in shown.stdout for command in ("serve", "migrate", "health"))


@pytest.mark.long
@pytest.mark.parametrize(("setting", "is_on"), [({}, True), ({"AUDIT_REFLECTION": "false"}, False)])
def test_a_service_that_only_its_machine_reaches_describes_itself(tmp_path, setting, is_on):
    env = {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(tmp_path / "audit.db"), **setting}
    with start_service("audit_svc", env, "serve") as service, grpc.insecure_channel(service.address) as channel:
        reflection: Any = reflection_pb2_grpc
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answers = reflection.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=60)
        if is_on:
            names = {found.name for found in next(answers).list_services_response.service}
            assert "onrecord.audit.v1.QuestionService" in names
        else:
            assert answers.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("listen", "setting", "is_on"),
    [
        ("127.0.0.1:50052", None, True),
        ("[::1]:50052", None, True),
        ("unix:/run/onrecord/audit.sock", None, True),
        ("0.0.0.0:50052", None, False),
        ("0.0.0.0:50052", "true", True),
        ("127.0.0.1:50052", "false", False),
    ],
)
def test_reflection_is_off_where_others_connect_unless_it_is_asked_for(monkeypatch, listen, setting, is_on):
    monkeypatch.setenv("AUDIT_LISTEN", listen)
    monkeypatch.setenv("AUDIT_ALLOW_PLAINTEXT_ON_NETWORK", "true")
    if setting:
        monkeypatch.setenv("AUDIT_REFLECTION", setting)
    assert AuditSettings().reflects is is_on
