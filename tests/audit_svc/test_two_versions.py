"""Producers and ledgers of two versions of the rows: nothing is lost, whichever is upgraded first."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from onrecord.audit.v1 import questions_pb2

from demo.processes import REPOSITORY, Service, start_service
from recording.row_version import ROW_VERSION
from tests.audit_svc.stubs import LedgerStub
from tests.support.newer_tree import environment_of, make_newer_tree, run_in
from tests.support.ports import own_port

PRODUCE = """
import asyncio, sys
from pathlib import Path

import structlog
from recording.delivery.connection import Target
from recording.record import open_record
from tests.recording.samples import tool_call

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    record = open_record(Path(sys.argv[2]), Target(sys.argv[1]))
    more = {"host": "build-7"} if sys.argv[4:] else {}
    for number in range(int(sys.argv[3])):
        record.logger.record(tool_call(number, **more))
    record.start()
    while "upgrade the ledger first" not in (detail := record.detail()) and not await record.drain(0.1):
        pass
    print(detail or "delivered", flush=True)
    sys.stdin.readline()  # until the ledger was upgraded
    assert await record.drain(120), record.detail()
    print(record.detail() or "delivered", flush=True)
    await record.aclose()

asyncio.run(main())
"""
ASK = """
import json, sys

import grpc
from onrecord.audit.v1 import questions_pb2
from tests.audit_svc.stubs import LedgerStub

with grpc.insecure_channel(sys.argv[1]) as channel:
    listed = LedgerStub(channel).ListToolCalls(questions_pb2.ListToolCallsRequest(), wait_for_ready=True, timeout=60)
    json.dump({record.tool_call.id: record.tool_call.host for record in listed.tool_calls}, sys.stdout)
"""


@pytest.fixture(scope="module")
def newer_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_newer_tree(tmp_path_factory.mktemp("newer") / "tree")


@contextmanager
def ledger(port: int, database: Path, tree: Path = REPOSITORY) -> Iterator[Service]:
    """The ledger of a tree, on a database that it has migrated."""
    run_in(tree, "-m", "audit_svc", "migrate", "up", AUDIT_DB=str(database))
    paths = environment_of(tree)["PYTHONPATH"]
    settings = {"AUDIT_DB": str(database), "AUDIT_LISTEN": f"127.0.0.1:{port}", "PYTHONPATH": paths}
    with start_service("audit_svc", settings, "serve", tree=tree) as service:
        yield service
        assert service.terminate() == 0


@pytest.mark.long
def test_rows_of_a_newer_producer_wait_and_are_stored_whole_after_the_upgrade(newer_tree, tmp_path):
    database = tmp_path / "audit.db"
    with own_port() as port:
        with ledger(port, database) as service:
            producer = subprocess.Popen(
                [sys.executable, "-c", PRODUCE, service.address, tmp_path / "state", "5", "newer"],
                cwd=newer_tree,
                env=environment_of(newer_tree),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert producer.stdout
            assert producer.stdout.readline() == (
                f"5 records wait in the spool: rows of row_version {ROW_VERSION + 1} wait, "
                f"and the ledger knows {ROW_VERSION}: upgrade the ledger first\n"
            )
            with grpc.insecure_channel(service.address) as channel:
                listed = LedgerStub(channel).ListToolCalls(questions_pb2.ListToolCallsRequest())
                assert not listed.tool_calls, "none is stored without its new field"
        with ledger(port, database, newer_tree) as service:
            told, _ = producer.communicate("upgraded\n", timeout=150)
            assert (producer.returncode, told) == (0, "delivered\n")
            stored = json.loads(run_in(newer_tree, "-c", ASK, service.address))
    assert stored == {f"call-{number}": "build-7" for number in range(5)}


@pytest.mark.long
def test_rows_of_an_older_producer_are_taken_by_a_newer_ledger(newer_tree, tmp_path):
    database = tmp_path / "audit.db"
    with own_port() as port, ledger(port, database, newer_tree) as service:
        told = subprocess.run(
            [sys.executable, "-c", PRODUCE, service.address, tmp_path / "state", "5"],
            input="go on\n",
            capture_output=True,
            text=True,
            timeout=150,
            check=True,
        ).stdout
        assert told == "delivered\ndelivered\n"
        assert json.loads(run_in(newer_tree, "-c", ASK, service.address)) == {f"call-{n}": "" for n in range(5)}
