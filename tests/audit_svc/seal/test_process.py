"""The seal beside a real service, and the commands that look at it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from audit_svc.seal.folder import KEY
from audit_svc.sealing.places import DATABASE
from demo.processes import Service, run_command, start_service
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.seal.conftest import Seal
from tests.audit_svc.seal.scripted_authority import Certificates, ScriptedAuthority
from tests.audit_svc.stubs import LedgerStub
from tests.support.processes import children_of, has_ended

pytestmark = pytest.mark.long
PATIENCE_SECONDS = 60


def serve(database: Path, **env: str) -> Service:
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_SEAL_SECONDS": "0.1"}
    return start_service("audit_svc", settings | env, "serve")


def command(database: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run_command("audit_svc", {"AUDIT_DB": str(database)}, *args)


def record(service: Service, rows: int, last: int) -> list[str]:
    sent = [audit_row() for _ in range(rows)]
    with grpc.insecure_channel(service.address) as channel:
        LedgerStub(channel).RecordBatch(request(*sent, producer_id="p", last=last), wait_for_ready=True, timeout=60)
    return [row.id for row in sent]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def leaves(database: Path) -> int:
    said = command(database, "seal", "status", "--json")
    return int(json.loads(said.stdout)["leaves"]) if said.returncode == 0 else 0


def test_what_was_acked_is_sealed_when_the_service_has_ended(tmp_path: Path):
    database = tmp_path / "audit.db"
    with serve(database) as service:
        ids = record(service, 50, 1)
        assert service.terminate() == 0
        log = service.stderr_text()
    verified = command(database, "verify", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    said = json.loads(verified.stdout)
    assert said["rows"] == 50
    assert not said["unsealed"]
    key = command(database, "seal", "key", "show").stdout.strip()
    assert log.count(f'"{key}"') == 1
    proof = tmp_path / "row.tlog-proof"
    proof.write_text(command(database, "proof", ids[7]).stdout)
    checked = command(database, "verify", "--proof", str(proof), "--key", key)
    assert checked.returncode == 0, checked.stderr
    assert ids[7] in checked.stdout
    another = command(tmp_path / "other.db", "seal", "key", "new", "ledger.example.com/other").stdout.strip()
    refused = command(database, "verify", "--proof", str(proof), "--key", another)
    assert refused.returncode == 1
    assert "none of the known keys" in refused.stderr


def test_a_service_has_its_log_stamped_and_verify_says_when(tmp_path: Path):
    authority = ScriptedAuthority(tmp_path / "authority", Certificates(tmp_path / "certificates"))
    authority.start()
    database, ca = tmp_path / "audit.db", authority.certificates.ca
    stamps = {"AUDIT_SEAL_TIMESTAMP_URL": authority.url, "AUDIT_SEAL_TIMESTAMP_CA": str(ca)}
    with serve(database, AUDIT_SEAL_OUTSIDE_SECONDS="0.05", AUDIT_SEAL_TIMESTAMP_SECONDS="0.05", **stamps) as service:
        record(service, 50, 1)
        until(lambda: any(int(path.parent.name) == 50 for path in tmp_path.rglob("stamp.tsr")))
        assert service.terminate() == 0
    authority.stop()
    verified = command(database, "verify", "--timestamp-ca", str(ca))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "50 leaves existed at" in verified.stdout
    said = json.loads(command(database, "verify", "--json").stdout)
    assert said["unchecked_timestamps"] >= 1
    key = str(database.with_name("audit.db.seal") / "key.pub")
    folder = str(database.with_name("audit.db.seal"))
    alone = json.loads(
        command(database, "verify", "--tiles", folder, "--key", key, "--timestamp-ca", str(ca), "--json").stdout
    )
    assert alone["timestamps"][-1]["authority"] == "Test Time-Stamps"
    other = Certificates(tmp_path / "other").ca
    assert command(database, "verify", "--timestamp-ca", str(other)).returncode == 1
    assert command(database, "verify", "--timestamp-ca", str(tmp_path / "none.pem")).returncode == 2
    half = run_command("audit_svc", {"AUDIT_DB": str(database), "AUDIT_SEAL_TIMESTAMP_URL": authority.url}, "serve")
    assert half.returncode != 0
    assert "AUDIT_SEAL_TIMESTAMP_CA" in half.stderr + half.stdout


OPENING = """
import os, sys
from pathlib import Path
from audit_svc.seal.folder import CHECKPOINT, KEY
from audit_svc.sealing import __main__ as sealing

def tell(*more):
    print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), *more, file=sys.stderr)

def told_open(*place, opens=sealing.open_sealer):
    sealer = opens(*place)
    tell(*((Path(sys.argv[1]) / name).exists() for name in (KEY, CHECKPOINT)))
    return sealer

sealing.open_sealer = told_open
sealing.main(*sys.argv[1:])
tell()
"""


def test_a_sealer_gives_way_only_once_its_log_is_open_and_has_its_key(seal: Seal):
    """At the lowest priority a busy machine would keep the log from its beginning for minutes."""
    done = subprocess.run(
        [sys.executable, "-c", OPENING, seal.folder, seal.folder / KEY, "ledger.example.com/test", "0"],
        env=os.environ | {DATABASE: str(seal.database)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = f"{os.getpriority(os.PRIO_PROCESS, 0)} {os.sched_getscheduler(0)}"
    assert done.stderr.splitlines() == [f"{ours} True True", f"19 {os.SCHED_BATCH}"]


def test_the_sealer_gives_way_to_the_service_in_a_session_of_its_own(tmp_path: Path):
    with serve(tmp_path / "audit.db") as service:
        record(service, 1, 1)
        until(lambda: leaves(tmp_path / "audit.db") == 1)
        (sealer,) = children_of(service.pid)
        assert os.getsid(sealer) == sealer != os.getsid(service.pid)
        assert os.getpriority(os.PRIO_PROCESS, sealer) == 19
        assert os.getpriority(os.PRIO_PROCESS, service.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        assert os.sched_getscheduler(sealer) == os.SCHED_BATCH
        group, services = (Path(f"/proc/{pid}/autogroup") for pid in (sealer, service.pid))
        if group.exists() and (told := group.read_text().split()):  # "/autogroup-33 nice 19"
            name, _, nice = told
            if os.geteuid() == 0:  # all others together may change one ten times a second
                assert nice == "19"
            assert name not in services.read_text().split()  # it may have none


def test_the_sealer_of_a_service_that_was_killed_writes_nothing_more(tmp_path: Path):
    """However late the machine lets it run: stopped, it cannot see that its service is gone."""
    database = tmp_path / "audit.db"
    with serve(database) as service:
        record(service, 20, 1)
        until(lambda: leaves(database) == 20)
        (sealer,) = children_of(service.pid)
        os.kill(sealer, signal.SIGSTOP)
        record(service, 20, 2)
        service.kill()
        try:
            until(lambda: has_ended(sealer))
        finally:
            with suppress(ProcessLookupError):
                os.kill(sealer, signal.SIGCONT)
    assert leaves(database) == 20


def test_a_sealer_that_is_behind_is_told_and_holds_up_no_row(tmp_path: Path):
    settings = {"AUDIT_SEAL_MAX_LAG_SECONDS": "1", "AUDIT_HEALTH_SECONDS": "0.2"}
    with serve(tmp_path / "audit.db", **settings) as service:
        until(lambda: (tmp_path / "audit.db.seal" / "checkpoint").exists())
        (sealer,) = children_of(service.pid)
        os.kill(sealer, signal.SIGSTOP)
        record(service, 20, 1)
        until(lambda: "behind what was committed" in service.stderr_text())
        assert leaves(tmp_path / "audit.db") == 0
        record(service, 20, 2)
        os.kill(sealer, signal.SIGCONT)
        until(lambda: "health.detail_settled" in service.stderr_text())
        until(lambda: leaves(tmp_path / "audit.db") == 40)
        assert service.terminate() == 0


def test_a_signal_to_all_processes_of_the_service_leaves_the_sealer_its_last_round(tmp_path: Path):
    """As systemd sends it, and a shell at its end."""
    database = tmp_path / "audit.db"
    with serve(database, AUDIT_SEAL_SECONDS="60") as service:
        until(lambda: (tmp_path / "audit.db.seal" / "checkpoint").exists())
        record(service, 20, 1)
        for sealer in children_of(service.pid):
            os.kill(sealer, signal.SIGTERM)
        assert service.terminate() == 0
    assert leaves(database) == 20


@pytest.mark.long(nightly=True)
def test_kills_of_the_sealer_and_of_the_service_leave_a_log_that_goes_on(tmp_path: Path):
    database = tmp_path / "audit.db"
    sent = 0
    for kill_service in (False, True, False, True):
        with serve(database) as service:
            for _ in range(5):
                sent += 1
                record(service, 20, sent)
                for sealer in children_of(service.pid):
                    os.kill(sealer, signal.SIGKILL)
            if kill_service:
                service.kill()
            else:
                assert service.terminate() == 0
    with serve(database) as service:
        until(lambda: leaves(database) >= 20 * sent)
        assert service.terminate() == 0
    verified = command(database, "verify", "--json")
    assert json.loads(verified.stdout)["rows"] == 20 * sent
    assert verified.returncode == 0, verified.stdout


def test_a_seal_that_is_moved_away_under_the_service_is_told_and_gone_on_with_where_it_comes_back(tmp_path: Path):
    database, folder = tmp_path / "audit.db", tmp_path / "audit.db.seal"
    with serve(database) as service:
        record(service, 20, 1)
        until(lambda: leaves(database) == 20)
        moved = folder.rename(tmp_path / "moved")
        record(service, 20, 2)
        until(lambda: "is gone" in service.stderr_text())
        assert not folder.exists()
        moved.rename(folder)
        until(lambda: leaves(database) == 40)
        assert service.terminate() == 0
    assert command(database, "verify").returncode == 0


def test_a_ledger_that_was_put_back_is_served_and_told_until_somebody_accepts_it(tmp_path: Path):
    database = tmp_path / "audit.db"
    with serve(database) as service:
        record(service, 20, 1)
        until(lambda: leaves(database) == 20)
        assert command(database, "backup", str(tmp_path / "copy.db")).returncode == 0
        record(service, 20, 2)
        assert service.terminate() == 0
    for path in database.parent.glob("audit.db*"):
        if path.is_file() and path.name != "audit.db.lock":
            path.unlink()
    (tmp_path / "copy.db").rename(database)
    with serve(database) as service:
        until(lambda: "seal.trouble" in service.stderr_text())
        record(service, 5, 3)
        refused = command(database, "verify")
        assert refused.returncode == 1
        for _ in range(PATIENCE_SECONDS):
            accepted = command(database, "seal", "accept-restore", "--reason", "the disk died")
            if accepted.returncode == 0:
                break
            assert "another process seals" in accepted.stderr
        assert "20 of tool_call" in accepted.stdout
        until(lambda: "seal.goes_on" in service.stderr_text())
        assert service.terminate() == 0
    verified = command(database, "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["lost_by_restores"] == 20
