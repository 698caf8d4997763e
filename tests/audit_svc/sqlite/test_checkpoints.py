"""Checkpoints beside the commits: the WAL begins anew, and what cannot be copied yet is copied later."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from audit_svc.sqlite.open import connection
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.write import checkpoints
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.samples import audit_row, batch

COMMITS = 300
CUT_PAGES = 500
ROWS = 20


@pytest.fixture(autouse=True)
def begun_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "BEGIN_PAGES", 100)
    monkeypatch.setattr(connection, "WAL_BYTES", CUT_PAGES * 8192)


def wal_pages(database: Path) -> int:
    """How long the WAL is."""
    return database.with_name(database.name + "-wal").stat().st_size // 8192


def commit(writer: Writer) -> None:
    assert writer.record(batch(*[audit_row() for _ in range(ROWS)])).result().stored == ROWS


@pytest.mark.long
def test_the_wal_begins_anew_however_long_commits_go_on(writer, database, reading):
    for _ in range(COMMITS):
        commit(writer)
    written = COMMITS * 10
    assert wal_pages(database) < written / 4
    assert reading.execute("SELECT count(*) FROM tool_call_log").fetchall() == [(COMMITS * ROWS,)]
    assert reading.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_commits_go_on_while_another_thread_copies(writer, monkeypatch):
    begun, ended = threading.Event(), threading.Event()

    def take_long(copying: apsw.Connection) -> None:
        begun.set()
        ended.wait()

    monkeypatch.setattr(checkpoints, "_checkpoint", take_long)
    while not begun.is_set():
        commit(writer)
    for _ in range(20):
        commit(writer)
    ended.set()


@pytest.mark.long
def test_a_reader_who_stays_in_the_past_keeps_the_wal_only_as_long_as_it_stays(writer, database):
    lengthen(writer, database)
    for _ in range(COMMITS):
        commit(writer)
    assert wal_pages(database) <= CUT_PAGES


@pytest.mark.long
async def test_the_looks_of_health_cut_the_wal_of_a_ledger_to_which_nobody_writes(open_ledger, database):
    ledger = open_ledger(database)
    lengthen(ledger._writer, database)
    async with asyncio.timeout(60):
        while wal_pages(database) > CUT_PAGES:
            assert await ledger.why_no_commit() == ""


def lengthen(writer: Writer, database: Path) -> None:
    """Makes the WAL long by a reader, who then leaves."""
    with closing(open_for_reading(database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tool_call_log").fetchall()
        for _ in range(COMMITS):
            commit(writer)
        assert wal_pages(database) > COMMITS * 5
        assert reader.execute("SELECT count(*) FROM tool_call_log").fetchall() == [(0,)]
        reader.execute("ROLLBACK")
