"""The reader: queries that nobody waits for any more must not keep others waiting."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
from onrecord.audit.v1 import questions_pb2

from audit_svc.errors import Damaged, NotFound, StoreClosed
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.read.database import SqliteDatabase
from audit_svc.sqlite.read.reader import Reader
from tests.audit_svc import asking

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def reader(connection: apsw.Connection, database: Path) -> AsyncIterator[Reader]:
    """A reader of two connections."""
    reader = Reader([open_for_reading(database) for _ in range(2)])
    yield reader
    reader.close()


async def test_a_query_is_ended_when_its_caller_is_cancelled(reader):
    endless = [asyncio.ensure_future(reader._run(lambda one: one.execute(ENDLESS).fetchall())) for _ in range(5)]
    await asyncio.sleep(0.2)
    assert not any(query.done() for query in endless)
    for query in endless:
        query.cancel()
    outcomes = await asyncio.gather(*endless, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    with pytest.raises(NotFound):
        await reader.ask(
            lambda one, asked: asking.get_session(one.connection, asked),
            questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="none")),
        )


async def test_closing_ends_queries_that_run(connection, database):
    reader = Reader([open_for_reading(database)])
    endless = asyncio.ensure_future(reader._run(lambda one: one.execute(ENDLESS).fetchall()))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(reader.close)
    with pytest.raises(StoreClosed):
        await endless


class Late(apsw.Connection):
    """A connection whose query begins when it has been interrupted already: its thread had no turn before."""

    def __init__(self, database: Path) -> None:
        super().__init__(str(database), flags=apsw.SQLITE_OPEN_READONLY)
        self.interrupted = threading.Event()

    def interrupt(self) -> None:
        super().interrupt()
        self.interrupted.set()


def count_for_ever(database: SqliteDatabase) -> object:
    connection = database.connection
    assert isinstance(connection, Late)
    assert connection.interrupted.wait(30)
    return connection.execute(ENDLESS).fetchall()


async def test_a_query_that_is_given_up_before_it_has_begun_keeps_nobody_waiting(connection, database):
    reader = Reader([Late(database)])
    given_up = asyncio.ensure_future(reader._run(count_for_ever))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await asyncio.wait_for(reader.ask(lambda one, asked: asked, "next"), 30) == "next"
    reader.close()


async def test_closing_ends_queries_that_have_not_begun(connection, database):
    reader = Reader([Late(database)])
    endless = asyncio.ensure_future(reader._run(count_for_ever))
    await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.to_thread(reader.close), 30)
    with pytest.raises(StoreClosed):
        await endless


async def test_a_page_that_is_damaged_is_told_as_damage(database, connection):
    connection.execute("CREATE TABLE pages(text)")
    connection.execute("WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 500) "
                       "INSERT INTO pages SELECT printf('%.*c', 4000, 'x') FROM n")  # fmt: skip
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * (size // 4))
    reader = Reader([open_for_reading(database)])
    with pytest.raises(Damaged, match="restore a backup"):
        await reader.ask(lambda one: one.execute("SELECT sum(length(text)) FROM pages").fetchall())
    reader.close()


async def test_heavy_questions_leave_connections_to_light_ones(reader):
    endless = [
        asyncio.ensure_future(reader.ask(lambda one: one.execute(ENDLESS).fetchall(), heavy=True)) for _ in range(3)
    ]
    await asyncio.sleep(0.1)
    assert await reader.ask(lambda one, asked: asked, "light") == "light"
    for query in endless:
        query.cancel()
    await asyncio.wait(endless)
