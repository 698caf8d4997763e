"""A ledger that is only read stays as it is, file and folder, however it came and whoever reads it."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from audit_svc.errors import StoreRefused
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.sqlite.open.files import reading
from demo.processes import Service, start_service
from tests.audit_svc.aged import make_ledger
from tests.audit_svc.samples import audit_row, cost_row, record_request, session_row
from tests.audit_svc.stubs import LedgerStub
from tests.support.forked import run_command

pytestmark = pytest.mark.long

Run = Callable[..., subprocess.CompletedProcess[str]]

NOBODY = 65534
FOLDED, IN_THE_WAL = 3, 4
"""Tool calls of a ledger that are in the database, and that only its -wal has."""
WAYS = {
    "stopped": (FOLDED + IN_THE_WAL, ""),
    "backup": (FOLDED + IN_THE_WAL, ""),
    "killed": (FOLDED + IN_THE_WAL, ""),
    "killed, without -shm": (FOLDED + IN_THE_WAL, ""),
    "killed, its -wal cut short": (FOLDED, ""),
    "copied alive": (FOLDED + IN_THE_WAL, ""),
    "copied alive, the database alone": (FOLDED, "its newest rows are missing"),
    "in use": (FOLDED + IN_THE_WAL, ""),
}
"""How a ledger comes; the calls that are read of it, and what is said on stderr."""
MEDIA = ("a folder of its own", "a read-only mount", "rights to read alone")
SHORT = {("killed, without -shm", MEDIA[1])}
COMMANDS = (
    ("calls", "--json"),
    ("errors", "--json"),
    ("sessions", "--json"),
    ("show", "session-1", "--json"),
    ("usage", "--by", "tool", "--json"),
    ("usage", "--by", "session", "--json"),
    ("queries", "--json"),
    ("export",),
    ("producers", "--json"),
    ("check", "--json"),
    ("backup", "{out}/copy.db", "--json"),
    ("migrate", "status"),
    ("prune", "--before", "90d", "--dry-run", "--json"),
    ("rebuild-rollups", "--dry-run", "--json"),
    ("rebuild-texts", "--dry-run", "--json"),
    ("vacuum", "--dry-run", "--json"),
)


def serve(database: Path) -> Service:
    return start_service("audit_svc", {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0"}, "serve")


def record(service: Service, calls: int) -> None:
    rows = record_request(
        tool_calls=[audit_row() for _ in range(calls)], model_requests=[cost_row()], sessions=[session_row()]
    )
    with grpc.insecure_channel(service.address) as channel:
        LedgerStub(channel).RecordBatch(rows, wait_for_ready=True, timeout=30)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def copy(home: Path, target: Path, *names: str) -> None:
    target.mkdir()
    for name in names or names_in(home):
        shutil.copy2(home / name, target / name)


@pytest.fixture(scope="module")
def area() -> Iterator[Path]:
    """A folder that everybody can look into, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="onrecord-media-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def ledgers(area: Path) -> Iterator[Path]:
    """A folder with one folder for each way in which a ledger comes."""
    home, made = area / "home", area / "ways"
    made.mkdir()
    with serve(home / "audit.db") as service:
        record(service, FOLDED)
        service.terminate()
    with serve(home / "audit.db") as service:
        record(service, IN_THE_WAL)
        copy(home, made / "copied alive", "audit.db", "audit.db-wal", "audit.db-shm")
        copy(home, made / "copied alive, the database alone", "audit.db")
        service.kill()
    copy(home, made / "killed")
    copy(home, made / "killed, without -shm", "audit.db", "audit.db-wal")
    copy(home, made / "killed, its -wal cut short", "audit.db", "audit.db-wal")
    os.truncate(made / "killed, its -wal cut short" / "audit.db-wal", 32 + 24 + 100)  # its header, and part of a frame
    with serve(home / "audit.db") as service:
        service.terminate()
    copy(home, made / "stopped")
    made_backup = run_command("audit_svc", {}, "backup", str(made / "backup" / "audit.db"), "--db", f"{home}/audit.db")
    assert made_backup.returncode == 0, made_backup.stderr
    copy(made / "copied alive", made / "in use")
    with serve(made / "in use" / "audit.db"):
        yield made


@pytest.fixture(scope="module")
def run(area: Path) -> Run:
    """Runs a command in a process of its own, as a user."""
    home = area / "nobody"
    home.mkdir()
    home.chmod(0o777)

    def ask(uid: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command("audit_svc", {"HOME": str(home), "TMPDIR": str(home)}, *arguments, uid=uid)

    return ask


def place(stack: ExitStack, folder: Path, medium: str) -> tuple[Path, int]:
    """Puts the folder on a medium; where it is then, and the user who reads it."""
    if medium == "rights to read alone":
        if os.geteuid():
            pytest.skip("only root can read as another user")
        folder.chmod(0o555)
        for file in folder.iterdir():
            file.chmod(0o444)
        return folder, NOBODY
    if medium == "a read-only mount":
        target = folder.with_name(folder.name + " mounted")
        target.mkdir()
        for arguments in (["--bind", str(folder)], ["-o", "remount,bind,ro"]):
            done = subprocess.run(["mount", *arguments, str(target)], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"a read-only mount cannot be made here: {done.stderr.strip()}")
            if "--bind" in arguments:
                stack.callback(subprocess.run, ["umount", "--lazy", str(target)], check=True)
        with suppress(OSError):
            (target / "written").touch()
            raise AssertionError("it can be written")
        return target, 0
    return folder, 0


def state_of(folder: Path) -> dict[str, Any]:
    """The names in a folder, each file's content and time, and the folder's own time."""
    files = {
        file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in folder.iterdir()
    }
    return {".": folder.stat().st_mtime_ns, **files}


@pytest.mark.parametrize(
    ("way", "medium"),
    [
        pytest.param(way, medium, marks=() if (way, medium) in SHORT else pytest.mark.long)
        for way in WAYS
        for medium in MEDIA
    ],
)
def test_a_ledger_that_is_read_stays_as_it_is(ledgers, run, area, way, medium):
    calls, said = WAYS[way]
    folder = ledgers / way
    with ExitStack() as stack:
        if way != "in use":  # which has to stay where its service has it
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=area))) / "audit"
            folder.parent.chmod(0o755)
            shutil.copytree(ledgers / way, folder)
        read_from, user = place(stack, folder, medium)
        # A service's own files change while it runs, and a reader of them marks in the -shm how far it reads.
        before = names_in(folder) if way == "in use" else state_of(folder)
        for command in COMMANDS:
            out = stack.enter_context(tempfile.TemporaryDirectory(dir=area))
            Path(out).chmod(0o777)
            arguments = [argument.format(out=out) for argument in command]
            answer = run(user, *arguments, "--db", str(read_from / "audit.db"))
            assert answer.returncode == 0, (command, answer)
            after = names_in(folder) if way == "in use" else state_of(folder)
            assert after == before, command
            told = answer.stdout if command[0] == "check" else answer.stderr
            if command[0] not in {"vacuum", "migrate"}:
                assert said in told, (command, answer)
            if not said and command[0] != "check":
                assert answer.stderr.count("\n") == (not answer.stdout), (command, answer)  # nothing is told as such
            if command[0] in {"calls", "export"}:
                assert answer.stdout.count("\n") == calls, (command, answer)
            if command[0] == "backup":
                assert json.loads(answer.stdout)["rows"]["tool_call_log"] == calls, answer
            if command[0] == "check":
                wrong = [line for line in answer.stdout.splitlines() if json.loads(line)["state"] == "wrong"]
                assert not wrong, answer


def write(database: Path) -> None:
    connection = open_for_writing(database)
    connection.execute("DELETE FROM session_labels")
    connection.close()


def test_what_changes_while_it_is_read_is_said(database):
    """Nothing keeps a service from starting while a ledger at rest is read."""
    make_ledger(database, hours=1)
    with (
        pytest.raises(StoreRefused, match="was changed while it was read, so what was read may be wrong: ask again"),
        reading(database),
    ):
        write(database)


def test_a_change_that_was_cut_short_is_refused(database):
    """SQLite would take it back, which writes; and without it the file is not what anybody has committed."""
    make_ledger(database, hours=1)
    database.with_name("audit.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
    with pytest.raises(StoreRefused, match="has a -journal beside it"), reading(database):
        pass


def test_a_service_keeps_its_locks_through_a_backup(database, tmp_path):
    """A process that opens and closes its own database loses its locks on it, and others fold or delete its WAL."""
    with serve(database) as service:
        record(service, 1)
        assert FoundDatabase(database).state == "in use"
        made = run_command("audit_svc", {}, "backup", str(tmp_path / "copy.db"), "--target", service.address)
        assert made.returncode == 0, made.stderr
        assert FoundDatabase(database).state == "in use"
