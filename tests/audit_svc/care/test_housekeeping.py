"""Housekeeping as operators do it: commands and RPCs, beside a service that takes rows, and when it is killed."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2

from audit_svc.__main__ import program
from audit_svc.errors import StoreRefused
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.store import SqliteLedger
from demo.processes import REPOSITORY, Service, start_service
from service_kit.access.roles import Role, make_token
from tests.audit_svc.aged import ago, hour_of_rows, make_ledger
from tests.audit_svc.stubs import LedgerStub
from tests.audit_svc.test_process import MODULE, PATIENT, Sender, found, serve
from tests.support.command_line import Result, invoke


def command(database: Path, *args: str, **env: str) -> Result:
    """What a command does; in this process, since a new one takes a second to begin."""
    return invoke(program, args, env={"AUDIT_DB": str(database), **env})


def checked(database: Path) -> list[dict[str, str]]:
    """What check finds that is not ok; it must find nothing wrong."""
    done = command(database, "check", "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0, findings
    return [finding for finding in findings if finding["state"] != "ok"]


def old_calls(database: Path) -> int:
    connection = open_for_reading(database)
    ((count,),) = connection.execute("SELECT count(*) FROM tool_call_log WHERE created_at < ?", (ago(1),))
    connection.close()
    return int(count)


def wait_until_pruned(database: Path) -> None:
    deadline = time.monotonic() + 120
    unfinished = "SELECT count(*) FROM pruned WHERE finished_at IS NULL"
    connection = open_for_reading(database)
    while connection.execute(unfinished).fetchall() != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    connection.close()
    assert old_calls(database) == 0


def kill_in_the_middle_of_a_prune(service: Service) -> administration_pb2.PruneResponse:
    with grpc.insecure_channel(service.address) as channel:
        stub = LedgerStub(channel)
        for response in stub.Prune(administration_pb2.PruneRequest(created_before_ms=ago(1))):
            if response.tool_calls >= 3000:
                service.kill()
                return response  # type: ignore[no-any-return]
    raise AssertionError


@pytest.mark.long(nightly=True)
def test_a_kill_in_the_middle_of_a_prune_beside_ingest_leaves_nothing_wrong_and_the_next_start_ends_it(tmp_path):
    database = tmp_path / "audit.db"
    make_ledger(database, hours=40, calls=500)
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service(PATIENT, settings, "serve") as service:
        sender = Sender(service)
        sender.start()
        sender.wait_for(500)
        told = kill_in_the_middle_of_a_prune(service)
        sender.join()
    assert not told.done
    left = old_calls(database)
    assert 0 < left <= 39 * 500 - told.tool_calls
    assert [finding["check"] for finding in checked(database)] == ["pruned"]
    assert set(sender.acknowledged) <= set(found(database))
    with serve(database) as service:
        wait_until_pruned(database)
        with grpc.insecure_channel(service.address) as channel:
            stub = LedgerStub(channel)
            again = stub.RecordBatch(hour_of_rows(5, calls=500))
        assert {rejection.code for rejection in again.rejections} == {audit_pb2.REJECTION_CODE_TOO_OLD}
        assert service.terminate() == 0
    (refused,) = checked(database)
    assert (refused["check"], refused["state"]) == ("producers", "note")
    connection = open_for_reading(database)
    ((calls, errors, by),) = connection.execute("SELECT tool_calls, errors, pruned_by FROM pruned")
    connection.close()
    assert (calls, errors, by) == (39 * 500, 39 * 50, "anonymous")


def a_day_ago() -> int:
    """The beginning of this hour, a day ago."""
    return (time.time_ns() // 1_000_000 - DAY_MS) // HOUR_MS * HOUR_MS


@pytest.mark.long
def test_a_service_with_a_retention_prunes_by_itself(tmp_path):
    database = tmp_path / "audit.db"
    make_ledger(database, hours=30)
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_RETENTION_DAYS": "1"}
    began = a_day_ago()
    with start_service(MODULE, settings, "serve") as service:
        deadline = time.monotonic() + 120
        while "prune.finished" not in service.stderr_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (line,) = [line for line in service.stderr_text().splitlines() if "prune.finished" in line]
    told = json.loads(line)
    # The ledger may have been made before an hour ended, and the service started after it, or before it.
    assert told["pruned_before"] in (began, a_day_ago())
    removed = 10 * sum(ago(hours) < told["pruned_before"] for hours in range(1, 31))
    assert (told["by"], told["tool_calls"]) == ("retention", removed)
    assert len(found(database)) == 300 - removed


@pytest.mark.long
def test_a_service_erases_texts_for_their_age_by_itself_and_leaves_the_rows(tmp_path):
    database = tmp_path / "audit.db"
    make_ledger(database, hours=60)
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_RETENTION_ARGS_DAYS": "1"}
    with start_service(MODULE, settings, "serve") as service:
        deadline = time.monotonic() + 120
        while "erase.finished" not in service.stderr_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (line,) = [line for line in service.stderr_text().splitlines() if "erase.finished" in line]
    told = json.loads(line)
    with open_for_reading(database) as connection:
        kept = "SELECT min(created_at), count(*) FROM tool_call_log WHERE erased IS NULL"
        found_texts: Any = connection.execute(kept).fetchall()
        ((first, left),) = found_texts
        entries = connection.execute("SELECT DISTINCT erased_by, reason FROM erasure_log").fetchall()
    assert (told["by"], told["left_in_wal"], told["tool_calls"]) == ("retention", False, 600 - left)
    assert 0 < left < 600
    assert first % DAY_MS < HOUR_MS
    assert entries == [("retention", "older than 1 days")]
    assert len(found(database)) == 600


def test_texts_that_would_outlive_their_rows_are_refused_at_start(tmp_path):
    settings = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_RETENTION_DAYS": "30", "AUDIT_RETENTION_ARGS_DAYS": "31"}
    done = invoke(program, ["serve"], env=settings)
    assert (done.exit_code, done.stderr.startswith("AUDIT_RETENTION_ARGS_DAYS: 31 days are more than")) == (2, True)


@pytest.mark.long
def test_a_backup_beside_ingest_has_all_that_was_acknowledged_before_it_and_whole_batches(tmp_path):
    database = tmp_path / "audit.db"
    with serve(database) as service:
        sender = Sender(service)
        sender.start()
        sender.wait_for(1000)
        for name, options in (("by-file.db", []), ("by-service.db", ["--target", service.address])):
            before = set(sender.acknowledged)
            copy = tmp_path / "kept" / name
            made = command(database, "backup", str(copy), *options)
            assert made.exit_code == 0, made.stderr
            assert copy.stat().st_mode & 0o777 == 0o600
            ids = found_in_backup(copy)
            assert before <= ids
            assert len(ids) % 50 == 0
        service.terminate()
        sender.join()


def found_in_backup(copy: Path) -> set[str]:
    assert checked(copy) == []
    connection = open_for_reading(copy)
    ids = {str(row[0]) for row in connection.execute("SELECT id FROM tool_call_log")}
    connection.close()
    return ids


def minute_after(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time_ms / 1000 + 60))


@pytest.mark.long
def test_prune_by_command_goes_through_the_service_or_to_the_file_and_never_both(tmp_path):
    database = tmp_path / "audit.db"
    make_ledger(database, hours=4)
    when = minute_after(ago(2))
    with serve(database) as service:
        refused = command(database, "prune", "--before", when)
        assert (refused.exit_code, "prune through it with --target" in refused.stderr) == (1, True)
        tried = command(database, "prune", "--before", when, "--target", service.address, "--dry-run", "--json")
        assert json.loads(tried.stdout)["tool_calls"] == 20
        assert command(database, "vacuum").exit_code == 1
        done = command(database, "prune", "--before", when, "--target", service.address)
        assert done.stdout.startswith("removed 20 tool calls, 4 model requests and 2 sessions from before 20")
        service.terminate()
    when = minute_after(ago(1))
    tried = command(database, "prune", "--before", when, "--dry-run")
    assert tried.stdout.startswith("would remove 10 tool calls")
    assert json.loads(command(database, "prune", "--before", when, "--json").stdout)["tool_calls"] == 10
    assert len(found(database)) == 10
    assert checked(database) == []


@pytest.mark.parametrize("words", [("check",), ("prune", "--before", "1d"), ("vacuum",), ("backup", "copy.db")])
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["", "dry-run"])
def test_a_command_on_what_is_no_ledger_ends_with_its_exit_code_and_one_sentence(tmp_path, words, dry_run):
    garbage = tmp_path / "audit.db"
    garbage.write_bytes(b"\x00garbage" * 1000)
    if words[0] == "check" and dry_run:
        pytest.skip("it reads nothing")
    words = tuple(str(tmp_path / word) if word == "copy.db" else word for word in words)
    for path, said in ((tmp_path / "none.db", "there is no file"), (garbage, "is not an SQLite database")):
        done = command(path, *words, *dry_run)
        code = 2 if words[0] == "check" else 1  # of which nothing can be said
        assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)
        assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["audit.db"]


@pytest.mark.long
def test_a_file_without_permission_is_told(tmp_path):
    database = tmp_path / "audit.db"
    make_ledger(database, hours=1)
    database.chmod(0)
    code = (
        "import locale, os, pathlib, sys\n"
        "import audit_svc.terminal.care\n"  # while it can be read
        "from audit_svc.__main__ import program\n"
        "if os.getuid() == 0:\n"
        "    os.setgid(65534)\n"
        "    os.setuid(65534)\n"
        f"program.main(['check', '--db', {str(database)!r}])\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (process.returncode, process.stdout) == (2, "")
    assert "cannot be read (Permission denied)" in process.stderr


@pytest.mark.long
def test_only_an_administrator_prunes_and_fetches_backups(tmp_path):
    database = tmp_path / "audit.db"
    make_ledger(database, hours=3)
    tokens = {role: make_token(f"the-{role}", [role]) for role in (Role.READER, Role.PRODUCER, Role.ADMIN)}
    callers = tmp_path / "callers.toml"
    callers.write_text("\n".join(table for _, table in tokens.values()))
    callers.chmod(0o600)
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_TOKENS_FILE": str(callers)}
    with start_service(MODULE, settings, "serve") as service:
        for role, (token, _) in tokens.items():
            shown = tmp_path / f"{role}.token"
            shown.write_text(token)
            shown.chmod(0o600)
            copy = tmp_path / f"{role}.db"
            for words in (("prune", "--before", "2h"), ("backup", str(copy))):
                target = ("--target", service.address)
                done = command(database, *words, *target, ONRECORD_TOKEN_FILE=str(shown))
                allowed = role is Role.ADMIN
                assert done.exit_code == (0 if allowed else 1), done.stderr
                assert ("it takes the role admin" in done.stderr) is not allowed
            assert copy.exists() is allowed
        assert service.terminate() == 0
    connection = open_for_reading(database)
    assert connection.execute("SELECT pruned_by FROM pruned").fetchall() == [("the-admin",)]
    logged = "SELECT caller, method, status, rows > 0 FROM query_log"
    assert connection.execute(logged).fetchall() == [("the-admin", "Backup", "OK", 1)]
    connection.close()


WRITING = (
    *(("prune", "--before", "1d"), ("vacuum",), ("rebuild-rollups",), ("rebuild-texts",)),
    *(("migrate", "up"), ("migrate", "down", "--to", "1")),
)


@pytest.mark.parametrize("args", WRITING, ids=" ".join)
def test_no_command_writes_a_database_that_its_owner_may_not_write_though_root_could(database: Path, args):
    make_ledger(database, hours=1)
    database.chmod(0o400)
    before = database.read_bytes(), sorted(path.name for path in database.parent.iterdir())
    done = command(database, *args)
    assert done.exit_code == 1
    assert f"{database} " in done.stderr
    assert "mode 400" in done.stderr
    assert (database.read_bytes(), sorted(path.name for path in database.parent.iterdir())) == before
    assert database.stat().st_mode & 0o777 == 0o400
    with pytest.raises(StoreRefused, match="mode 400"):
        SqliteLedger.open(database, queue_rows=1)


def test_a_folder_that_a_backup_makes_is_told(tmp_path):
    database = tmp_path / "audit.db"
    make_ledger(database, hours=1)
    done = command(database, "backup", str(tmp_path / "new" / "copy.db"))
    assert done.exit_code == 0
    assert done.stderr.splitlines()[1:] == [f"made the folder {tmp_path / 'new'}, which was not there"]
    done = command(database, "backup", str(tmp_path / "new" / "other.db"))
    assert (done.exit_code, "made the folder" in done.stderr) == (0, False)
