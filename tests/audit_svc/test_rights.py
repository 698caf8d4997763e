"""A database without the rights to write it: refused at the start, and told while the service runs."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, ServiceEnded, start_service
from service_kit.health import DETAIL_KEY
from tests.audit_svc.samples import audit_row
from tests.audit_svc.test_process import MODULE, found, record, serve

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STRANGER = 12345
"""A user's id."""

Put = Callable[[Path], Path]


@pytest.fixture(scope="module")
def bound_by_rights() -> Sequence[str]:
    """What starts a program that is bound by the modes of files, as root is not."""
    if os.geteuid():
        return ()
    prefix = ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search,-fowner")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("root cannot give up its rights here")
    return prefix


@pytest.fixture
def start(bound_by_rights: Sequence[str]) -> Callable[..., Service]:
    def start(database: Path, **env: str) -> Service:
        variables = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", **env}
        return start_service(MODULE, variables, "serve", prefix=bound_by_rights)

    return start


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The database's folder, in which everything may be removed at the end."""
    folder = tmp_path / "ledger"
    folder.mkdir(mode=0o700)
    yield folder
    folder.chmod(0o700)


def of_database(suffix: str) -> Put:
    return lambda folder: folder / f"audit.db{suffix}"


def itself(folder: Path) -> Path:
    return folder


PLACES = {"file": of_database(""), "folder": itself, "lock": of_database(".lock")}
OPEN = {**PLACES, "wal": of_database("-wal"), "shm": of_database("-shm")}


def without_writing(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def with_writing(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o200)


def refused(start: Callable[..., Service], database: Path, path: Path) -> str:
    """The line that says why a start is refused: a setting is wrong where it is the folder, else the database is."""
    with pytest.raises(ServiceEnded) as ended:
        start(database)
    code, *lines = str(ended.value).splitlines()
    (line,) = (line for line in lines if not line.startswith("{"))  # the others are the log's
    if path == database.parent:
        assert code == "exit code 2"
        assert line.startswith(f"AUDIT_DB: {path}")
        assert line.endswith((f"this user may not write to {path}", "(Permission denied)"))
    else:
        assert code == "exit code 1"
        assert f"{path} cannot be written by user {os.geteuid()} (it belongs to user " in line
        assert line.endswith("the rights to read and write it, or choose another database with AUDIT_DB")
    return line


@pytest.mark.long
@pytest.mark.parametrize("place", ["file", "folder", "lock"])
def test_what_cannot_be_written_is_refused_by_its_name_and_served_with_all_rows_when_it_can(start, folder, place):
    database, path = folder / "audit.db", PLACES[place](folder)
    with serve(database) as service:
        record(service, audit_row(id="before"))
        assert service.terminate() == 0
    without_writing(path)
    refused(start, database, path)
    with_writing(path)
    with start(database) as service:
        record(service, audit_row(id="after"))
        assert service.terminate() == 0
    assert set(found(database)) == {"before", "after"}


@pytest.mark.long
def test_a_folder_in_which_no_database_can_be_made_is_refused(start, folder):
    without_writing(folder)
    refused(start, folder / "audit.db", folder)
    assert list(folder.iterdir()) == []


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_belongs_to_another_user_is_refused(start, folder, place):
    database, path = folder / "audit.db", PLACES[place](folder)
    with serve(database) as service:
        service.terminate()
    os.chown(path, STRANGER, STRANGER)
    line = refused(start, database, path)
    assert place == "folder" or f"it belongs to user {STRANGER}" in line


class Health:
    """What a service says of itself."""

    def __init__(self, service: Service) -> None:
        self._address = service.address

    def until(self, status: int) -> str:
        """Waits for the status; returns the words on it."""
        with grpc.insecure_channel(self._address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for told in stub.Watch(health_pb2.HealthCheckRequest(), timeout=60):
                if told.status == status:
                    break
            _, call = stub.Check.with_call(health_pb2.HealthCheckRequest(), timeout=30)
            return str(dict(call.trailing_metadata()).get(DETAIL_KEY, b"").decode())


@pytest.mark.long
@pytest.mark.parametrize("place", OPEN)
def test_rights_that_are_taken_away_are_told_at_once_and_no_acknowledged_row_is_lost(start, folder, place):
    """A look at health's own time would come in an hour."""
    database, path = folder / "audit.db", OPEN[place](folder)
    with start(database, AUDIT_HEALTH_SECONDS="3600") as service:
        health = Health(service)
        health.until(SERVING)
        assert record(service, audit_row(id="before")).stored == 1
        without_writing(path)
        assert f"{path} cannot be written by user" in health.until(NOT_SERVING)
        # What is open can be written: a row that is acknowledged is there.
        assert record(service, audit_row(id="without")).stored == 1
        with_writing(path)
        assert health.until(SERVING) == ""
        assert record(service, audit_row(id="after")).stored == 1
        service.kill()
    assert set(found(database)) == {"before", "without", "after"}
