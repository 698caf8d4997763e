"""The database's file is removed, moved, emptied or replaced under a running service, and the service starts again."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, ServiceEnded
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub
from tests.audit_svc.test_process import found, record, serve

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


def watch(service: Service, wanted: int) -> None:
    """Until health tells wanted; the watch ends with the test's own time limit."""
    with grpc.insecure_channel(service.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for told in stub.Watch(health_pb2.HealthCheckRequest(), timeout=30):
            if told.status == wanted:
                return


def refused(service: Service) -> str:
    with grpc.insecure_channel(service.address) as channel:
        stub = LedgerStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.RecordBatch(request(audit_row()), timeout=30)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(refusal.value.details())


def remove(database: Path) -> None:
    database.unlink()


def move_folder(database: Path) -> None:
    database.parent.rename(database.parent.with_name("moved"))


def replace(database: Path) -> None:
    copy = database.with_name("copy")
    shutil.copy(database, copy)
    copy.rename(database)


def remove_beside(suffix: str) -> Callable[[Path], None]:
    def remove(database: Path) -> None:
        database.with_name(database.name + suffix).unlink()

    return remove


@pytest.mark.long
@pytest.mark.parametrize(
    "lose",
    [remove, move_folder, replace, *map(remove_beside, ("-wal", "-shm", ".lock"))],
    ids=["rm", "mv", "replaced", "wal", "shm", "lock"],
)
def test_a_file_that_is_not_the_one_that_was_opened_is_acknowledged_nothing_and_told(tmp_path, lose):
    database = tmp_path / "ledger" / "audit.db"
    with serve(database) as service:
        assert record(service, audit_row()).stored == 1
        watch(service, SERVING)
        lose(database)
        assert "since the ledger was opened" in refused(service)
        watch(service, NOT_SERVING)
        while "health.not_serving" not in service.stderr_text():
            time.sleep(0.05)


@pytest.mark.long
def test_a_service_to_which_nobody_writes_notices_too(tmp_path):
    with serve(tmp_path / "audit.db") as service:
        watch(service, SERVING)
        remove(tmp_path / "audit.db")
        watch(service, NOT_SERVING)


@pytest.mark.long
def test_a_folder_that_comes_back_is_served_again_with_every_row(tmp_path):
    database = tmp_path / "ledger" / "audit.db"
    with serve(database) as service:
        record(service, audit_row(id="before"))
        move_folder(database)
        refused(service)
        (tmp_path / "moved").rename(database.parent)
        watch(service, SERVING)
        record(service, audit_row(id="after"))
        assert service.terminate() == 0
    assert {"before", "after"} <= set(found(database))


@pytest.mark.long
@pytest.mark.parametrize("is_emptied", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_database_that_was_served_is_not_begun_anew_in_silence(tmp_path, is_emptied):
    database = tmp_path / "audit.db"
    with serve(database) as service:
        record(service, audit_row())
        service.terminate()
    remove(database)
    if is_emptied:
        database.touch()
    with pytest.raises(ServiceEnded, match=r"exit code 2\n(.|\n)*was served before and is (.|\n)*--create"):
        serve(database)
    with serve(database, "--create") as service:
        assert record(service, audit_row()).stored == 1
