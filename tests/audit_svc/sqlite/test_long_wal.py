"""What bounds the WAL: readers that stand still, readers that follow each other, and a disk that it has filled."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import DiskFull
from audit_svc.sqlite import store
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.open.room import take_room
from audit_svc.sqlite.open.wal_readers import wal_readers
from audit_svc.sqlite.store import SqliteLedger
from audit_svc.sqlite.write import checkpoints
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.samples import audit_row, batch

ROWS = 50
DISK_BYTES = 6 * 2**20


@pytest.fixture(autouse=True)
def looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "AGAIN_SECONDS", 0.05)


def wal_bytes(database: Path) -> int:
    return database.with_name(f"{database.name}-wal").stat().st_size


def large() -> list[audit_pb2.AuditRow]:
    return [audit_row(args_summary="x" * 2000) for _ in range(ROWS)]


async def fill(ledger: SqliteLedger) -> int:
    """Records until the disk is full, and returns how many rows were acknowledged."""
    acknowledged = 0
    while True:
        try:
            acknowledged += (await ledger.record(batch(*large()))).stored
        except DiskFull:
            return acknowledged


async def until_recorded(ledger: SqliteLedger) -> int:
    """As a producer does, which tries again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return (await ledger.record(batch(*large()))).stored
            except DiskFull:
                await asyncio.sleep(0.1)


def stay(reader: apsw.Connection) -> None:
    """In the past."""
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tool_call_log").fetchall()


@contextmanager
def reading_elsewhere(database: Path) -> Iterator[int]:
    """Another process, which stays in the past; its id."""
    read = "import sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN; SELECT count(*) FROM sessions'); "
    words = [sys.executable, "-c", f"{read} print(flush=True); input()", str(database)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        reader.stdout.readline()
        yield reader.pid
        reader.communicate("\n")


async def test_a_disk_that_the_wal_filled_under_a_reader_has_room_again_once_it_has_gone(small_disk, open_ledger):
    database = small_disk / "audit.db"
    ledger = open_ledger(database)
    with closing(open_for_reading(database)) as reader:
        stay(reader)
        acknowledged = await fill(ledger)
        assert wal_bytes(database) > DISK_BYTES / 3
    acknowledged += await until_recorded(ledger)
    assert wal_bytes(database) < DISK_BYTES / 3
    with closing(open_for_reading(database)) as reader:
        assert reader.execute("SELECT count(*) FROM tool_call_log").fetchall() == [(acknowledged,)]
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_the_looks_of_health_empty_a_wal_that_has_filled_the_disk(small_disk, open_ledger):
    """Though nobody sends rows any more."""
    database = small_disk / "audit.db"
    ledger = open_ledger(database)
    with closing(open_for_reading(database)) as reader:
        stay(reader)
        await fill(ledger)
    async with asyncio.timeout(60):
        while wal_bytes(database) > DISK_BYTES / 3:
            await ledger.why_no_commit()
            await asyncio.sleep(0.1)


async def test_the_rows_fill_a_small_disk_and_not_the_wal(small_disk, open_ledger):
    """The WAL is emptied before it is longer than what is free beside it, or 40 MB."""
    database = small_disk / "audit.db"
    await fill(open_ledger(database))
    assert database.stat().st_size > DISK_BYTES / 3


async def test_another_that_fills_the_disk_keeps_no_wal_from_being_emptied(small_disk, open_ledger):
    """What is committed has its room in the database already."""
    database = small_disk / "audit.db"
    ledger = open_ledger(database)
    with closing(open_for_reading(database)) as reader:
        stay(reader)
        while (length := wal_bytes(database)) < DISK_BYTES / 6:  # what is done in idle time writes too
            await ledger.record(batch(*large()))
        with (small_disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        assert shutil.disk_usage(small_disk).free < 4096
    await until_recorded(ledger)
    assert wal_bytes(database) < length


@pytest.mark.long
def test_readers_that_follow_each_other_do_not_make_the_wal_longer_for_ever(writer: Writer, database, monkeypatch):
    monkeypatch.setattr(checkpoints, "BEGIN_PAGES", 50)
    monkeypatch.setattr(checkpoints, "LONG_BYTES", 2**20)
    ended = threading.Event()

    def read(begun: threading.Event, mine: threading.Event, other: threading.Event) -> None:
        """Each begins before the other ends."""
        with closing(open_for_reading(database)) as reader:
            while not ended.is_set():
                stay(reader)
                begun.set()
                other.set()
                while not mine.wait(0.1) and not ended.is_set():
                    pass
                mine.clear()
                ended.wait(0.01)  # some commits
                reader.execute("ROLLBACK")

    first, second, begun = threading.Event(), threading.Event(), threading.Event()
    readers = [threading.Thread(target=read, args=(begun, *ways)) for ways in ((first, second), (second, first))]
    for reader in readers:
        reader.start()
    try:
        begun.wait()
        lengths = []
        for _ in range(200):
            writer.record(batch(*large())).result()
            lengths.append(wal_bytes(database))
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert max(lengths[100:]) < 16 * 2**20


def test_who_reads_the_wal_is_known_by_its_process(writer, database):
    writer.record(batch(audit_row())).result()
    assert wal_readers(database) == set()
    with closing(open_for_reading(database)) as reader:
        stay(reader)
        assert wal_readers(database) == {os.getpid()}
    assert wal_readers(database) == set()


async def test_a_process_that_keeps_a_long_wal_is_named(small_disk, open_ledger, monkeypatch):
    monkeypatch.setattr(store, "HELD_SECONDS", 0.1)
    database = small_disk / "audit.db"
    ledger = open_ledger(database)
    await ledger.record(batch(*large()))
    with reading_elsewhere(database) as reader:
        assert not ledger.held_up_by()
        await fill(ledger)
        async with asyncio.timeout(60):
            while reader not in ledger.held_up_by():
                await asyncio.sleep(0.02)
    await until_recorded(ledger)
    assert not ledger.held_up_by()


class Unable:
    """A connection to a file whose file system gives no room beforehand."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.filename, self.execute = connection.filename, connection.execute

    def file_control(self, *_: object) -> bool:
        raise apsw.IOError("disk I/O error")


def test_a_file_system_that_gives_no_room_beforehand_is_not_a_full_disk(connection, small_disk):
    connection.execute("CREATE TABLE pages AS SELECT zeroblob(4000000)")
    take_room(Unable(connection))  # type: ignore[arg-type]
    with closing(open_for_writing(small_disk / "audit.db")) as full:
        full.execute("CREATE TABLE pages AS SELECT zeroblob(2000000)")
        with (small_disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        with pytest.raises(apsw.FullError):
            take_room(Unable(full))  # type: ignore[arg-type]
