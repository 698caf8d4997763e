"""Connections that only read: what is given up ends on the server too, and what was lost is opened again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from onrecord.audit.v1 import questions_pb2

from audit_svc.errors import StoreClosed, StoreUnavailable
from audit_svc.ledger.query import query_of
from audit_svc.postgres.open.connection import Connection
from audit_svc.postgres.read import reader as reading
from audit_svc.postgres.read.database import PostgresDatabase
from audit_svc.postgres.read.reader import PostgresReader
from audit_svc.sql.ledger import ReadableSql
from audit_svc.sql.read import tool_calls
from tests.audit_svc.samples import question

pytestmark = pytest.mark.postgres
RUNNING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()"
)


def sleep(database: PostgresDatabase, seconds: int = 60) -> object:
    return database.execute("SELECT pg_sleep(?::int)", (seconds,)).fetchall()


def one(database: PostgresDatabase) -> object:
    return database.execute("SELECT 1").fetchall()


@pytest.fixture
async def reader(migrated: Connection, postgres_database: str) -> AsyncIterator[PostgresReader]:
    """A reader of two connections."""
    reader = PostgresReader(postgres_database, readers=2)
    yield reader
    await asyncio.to_thread(reader.close)


async def running(connection: Connection, wanted: int) -> None:
    """Waits until so many questions sleep on the server."""
    async with asyncio.timeout(30):
        while connection.execute(RUNNING).fetchall() != [(wanted,)]:
            await asyncio.sleep(0.02)


async def test_a_cancelled_question_ends_on_the_server_and_keeps_nobody_waiting(reader, migrated):
    given_up = [asyncio.ensure_future(reader.ask(sleep)) for _ in range(5)]
    await running(migrated, 2)
    for asked in given_up:
        asked.cancel()
    outcomes = await asyncio.gather(*given_up, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert [await asyncio.wait_for(reader.ask(one), 30) for _ in range(20)] == [[(1,)]] * 20
    await running(migrated, 0)


async def test_closing_ends_what_runs(migrated, postgres_database):
    reader = PostgresReader(postgres_database, readers=1)
    endless = asyncio.ensure_future(reader.ask(sleep))
    await running(migrated, 1)
    await asyncio.wait_for(asyncio.to_thread(reader.close), 30)
    with pytest.raises(StoreClosed):
        await endless
    await running(migrated, 0)


async def test_questions_one_after_another_have_one_connection_which_stays_warm(reader):
    pid = "SELECT pg_backend_pid()"
    pids = [await reader.ask(lambda database: database.execute(pid).fetchall()) for _ in range(5)]
    assert len({str(one) for one in pids}) == 1


async def test_a_connection_that_was_lost_is_opened_again_and_its_question_answered(reader, migrated):
    for _ in range(2):
        assert await reader.ask(one) == [(1,)]
        migrated.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                         "AND datname = current_database()").fetchall()  # fmt: skip
    assert await asyncio.gather(*(reader.ask(one) for _ in range(4))) == [[(1,)]] * 4


async def test_a_server_that_is_not_there_is_unavailable_and_answers_when_it_is(postgres_server, migrated):
    away = PostgresReader("postgresql://onrecord@127.0.0.1:1/nowhere", readers=1)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await away.ask(one)
    away.close()


async def test_a_question_that_takes_too_long_says_what_to_do(migrated, postgres_database, monkeypatch):
    monkeypatch.setattr(reading, "STATEMENT_SECONDS", 1)
    reader = PostgresReader(postgres_database, readers=1)
    with pytest.raises(StoreUnavailable, match=r"ended the question after 1 s.*ask for a shorter time"):
        await reader.ask(sleep)
    assert await reader.ask(one) == [(1,)]
    reader.close()


async def test_what_the_url_says_of_its_statements_stands(migrated, postgres_database):
    reader = PostgresReader(f"{postgres_database}?options=-c%20statement_timeout%3D7min", readers=1)
    assert await reader.ask(lambda database: database.execute("SHOW statement_timeout").fetchall()) == [("7min",)]
    reader.close()


async def test_a_reader_cannot_write(reader, migrated):
    with pytest.raises(StoreUnavailable, match="takes no writes"):
        await reader.ask(lambda database: database.execute("INSERT INTO recorders VALUES ('eve')"))
    assert migrated.execute("SELECT * FROM recorders").fetchall() == []


async def test_what_is_read_in_a_moment_is_of_one_moment(reader, migrated):
    def twice(database: PostgresDatabase) -> object:
        count = "SELECT count(*) FROM recorders"
        with database.moment():
            before = database.execute(count).fetchall()
            migrated.execute("INSERT INTO recorders VALUES ('late')")
            return before, database.execute(count).fetchall()

    assert await reader.ask(twice) == ([(0,)], [(0,)])
    assert await reader.ask(lambda database: database.execute("SELECT count(*) FROM recorders").fetchall()) == [(1,)]


async def test_a_text_that_no_column_can_hold_is_found_nowhere(reader):
    ledger = ReadableSql(reader)
    for fields in ({"engine": "a\0b"}, {"args_contain": "a\0b"}, {"labels": {"a\0": "\0"}}):
        asked = query_of(question(questions_pb2.ListToolCallsRequest, **fields))
        assert (await ledger.list_tool_calls(asked)).rows == []


async def test_heavy_questions_leave_connections_to_light_ones(reader, migrated):
    heavy = [asyncio.ensure_future(reader.ask(sleep, heavy=True)) for _ in range(3)]
    await running(migrated, 1)
    assert await reader.ask(tool_calls.last_position) == 0
    for asked in heavy:
        asked.cancel()
    await asyncio.wait(heavy)
