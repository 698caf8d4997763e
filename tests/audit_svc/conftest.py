"""A database of each test's own, a writer on it, and a whole ledger behind a real port."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest

from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.store import SqliteLedger
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.empty import write_empty
from tests.audit_svc.serving import serving
from tests.audit_svc.stubs import LedgerStub


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a database can be made."""
    return tmp_path / "audit.db"


@pytest.fixture
def connection(database: Path) -> Iterator[apsw.Connection]:
    """A connection that writes to a database with all migrations applied."""
    write_empty(database)
    connection = open_for_writing(database)
    yield connection
    connection.close()


@pytest.fixture
def writer(connection: apsw.Connection, open_writer: Callable[..., Writer]) -> Writer:
    """A writer with room for 50,000 rows."""
    return open_writer(connection)


@pytest.fixture
def open_writer() -> Iterator[Callable[..., Writer]]:
    """Opens writers, which are closed at the end whatever the test does: else their threads would run on."""
    opened: list[Writer] = []

    def open_one(connection: apsw.Connection, queue_rows: int = 50_000, **options: Any) -> Writer:
        opened.append(Writer(connection, queue_rows, **options))
        return opened[-1]

    yield open_one
    for writer in opened:
        writer.close()


@pytest.fixture
async def open_ledger() -> AsyncIterator[Callable[..., SqliteLedger]]:
    """Opens ledgers, which are closed at the end whatever the test does."""
    opened: list[SqliteLedger] = []

    def open_one(path: Path, queue_rows: int = 50_000, **options: Any) -> SqliteLedger:
        opened.append(SqliteLedger.open(path, queue_rows=queue_rows, **options))
        return opened[-1]

    yield open_one
    for ledger in opened:
        await ledger.close()


@pytest.fixture
def reading(writer: Writer, database: Path) -> Iterator[apsw.Connection]:
    """A connection that sees what the writer has committed."""
    connection = open_for_reading(database)
    yield connection
    connection.close()


@pytest.fixture
async def ledger(database: Path, open_ledger: Callable[..., SqliteLedger]) -> AsyncIterator[Any]:
    """A client's stub of a ledger on a real port."""
    write_empty(database)
    store = open_ledger(database)
    async with serving(store) as (address, _), grpc.aio.insecure_channel(address) as channel:
        yield LedgerStub(channel)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
