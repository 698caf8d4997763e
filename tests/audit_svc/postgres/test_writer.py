"""What befalls a writer's database is passing: nothing that was acknowledged is lost, nothing is stored twice."""

import asyncio
from contextlib import closing, suppress

import pytest

from audit_svc.errors import NotWriter, StoreUnavailable
from audit_svc.postgres.open.connection import connect
from audit_svc.postgres.store import PostgresLedger
from audit_svc.postgres.write.writer import Writer
from demo.postgres import PostgresServer
from tests.audit_svc.samples import audit_row, batch

pytestmark = pytest.mark.postgres

COUNTS = "SELECT count(*), count(DISTINCT id), min(position), max(position) FROM tool_call_log"


async def test_a_server_that_is_killed_is_a_passing_fault_and_no_acknowledged_row_is_lost():
    with PostgresServer() as server:
        ledger = PostgresLedger.open(server.create_database("ledger"), queue_rows=50_000)
        acknowledged = 0
        for _ in range(3):
            assert (await ledger.record(batch(*(audit_row() for _ in range(20))))).stored == 20
            acknowledged += 20
            again = [audit_row() for _ in range(10)]
            server.kill()
            with pytest.raises(StoreUnavailable, match="cannot be reached now"):
                await ledger.record(batch(*again))
            assert "cannot be reached" in await ledger.why_no_commit()
            server.start()
            assert (await ledger.record(batch(*again))).stored == 10
            acknowledged += 10
            assert await ledger.why_no_commit() == ""
        await ledger.close()
        # An order of commits without holes: a transaction that was taken back leaves none.
        counts = f"{acknowledged}|{acknowledged}|1|{acknowledged}"
        assert server.execute(COUNTS, "ledger").strip() == counts


async def test_a_session_that_the_server_ends_is_opened_again(postgres_server, postgres_database):
    ledger = PostgresLedger.open(postgres_database, queue_rows=50_000)
    name = postgres_database.rpartition("/")[2]
    row = audit_row()
    assert (await ledger.record(batch(row))).stored == 1
    postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    other = audit_row()
    with suppress(StoreUnavailable):  # unless the work between commits has met it first
        await ledger.record(batch(row, other))
    answer = await ledger.record(batch(row, other))
    assert answer.stored + answer.duplicates == 2
    await ledger.close()
    with closing(connect(postgres_database)) as connection:
        assert connection.execute(COUNTS).fetchall() == [(2, 2, 1, 2)]


def test_two_writers_keep_their_rows_apart(migrated, postgres_database):
    """Also where nobody fences them: positions are those of the commits, and each id is stored once."""
    rows = [[audit_row() for _ in range(5)] for _ in range(40)]
    writers = [Writer(postgres_database, 50_000) for _ in range(2)]
    answers = [writer.record(batch(*some)) for some in rows for writer in writers]
    stored = sum(answer.result(60).stored for answer in answers)
    for writer in writers:
        writer.close()
    assert stored == 200
    assert migrated.execute(COUNTS).fetchall() == [(200, 200, 1, 200)]
    assert migrated.execute("SELECT sum(calls) FROM tool_call_usage_hourly").fetchall() == [(200,)]


def test_a_writer_whose_epoch_is_over_writes_nothing(migrated, postgres_database):
    epoch = 7
    migrated.execute("UPDATE ledger_writer SET epoch = 7")
    writer = Writer(postgres_database, 50_000, epoch=lambda: epoch)
    assert writer.record(batch(audit_row())).result(30).stored == 1
    migrated.execute("UPDATE ledger_writer SET epoch = 8")
    with pytest.raises(NotWriter):
        writer.record(batch(audit_row())).result(30)
    epoch = 0
    with pytest.raises(NotWriter):
        writer.run(lambda connection: connection.execute("DELETE FROM sessions")).result(30)
    epoch = 8
    assert writer.record(batch(audit_row())).result(30).stored == 1
    writer.close()


async def test_a_batch_whose_waiter_has_gone_is_stored(postgres_database):
    ledger = PostgresLedger.open(postgres_database, queue_rows=50_000)
    waiting = asyncio.ensure_future(ledger.record(batch(audit_row())))
    waiting.cancel()
    assert (await ledger.record(batch(audit_row()))).stored == 1
    assert await ledger.last_position() == 2
    await ledger.close()
    with closing(connect(postgres_database)) as connection:
        assert connection.execute(COUNTS).fetchall() == [(2, 2, 1, 2)]
