"""The sums of sessions follow the rows when nothing else is to be written, and only where the rows are written."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw
import pytest

from audit_svc.postgres.open.connection import Connection
from audit_svc.postgres.write.writer import Writer
from audit_svc.sql.usage.session_usage import sum_some
from audit_svc.sql.usage.usage_tables import usage_tables
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.read.database import SQLITE
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, session_row

pytestmark = pytest.mark.postgres
SUMS = "SELECT * FROM session_usage ORDER BY session_id, recorded_by, engine, model"
ROWS = [
    audit_row(session_id=f"s{n % 7}", engine=f"e{n % 2}", duration_ms=n**3, error="broken" if n % 5 == 0 else None,
              created_at_ms=NOW_MS - n)
    for n in range(300)
]  # fmt: skip
COSTS = [cost_row(session_id=f"s{n % 3}", cost_micros=n, created_at_ms=NOW_MS - 7 * n) for n in range(40)]


@contextmanager
def writing(url: str, epoch: Callable[[], int] | None = None) -> Iterator[Writer]:
    writer = Writer(url, 10_000, epoch=epoch)
    try:
        yield writer
    finally:
        writer.close()


def summed(connection: Connection) -> object:
    return connection.execute("SELECT tool_calls, model_requests FROM session_usage_summed").fetchall()[0]


def wait_for(connection: Connection, wanted: tuple[int, int]) -> None:
    deadline = time.monotonic() + 60
    while summed(connection) != wanted:
        assert time.monotonic() < deadline, summed(connection)
        time.sleep(0.02)


def test_sums_follow_the_rows_and_are_those_of_sqlite(migrated, postgres_database):
    with writing(postgres_database) as writer:
        for first in range(0, 300, 60):
            assert writer.record(batch(*ROWS[first : first + 60])).result(60).stored == 60
        assert writer.record(batch(model_requests=COSTS)).result(60).stored == 40
        wait_for(migrated, (300, 40))
    sums = migrated.execute(SUMS).fetchall()
    other = apsw.Connection(":memory:")
    names = "position, session_id, recorded_by, engine, model, created_at"
    migrate.up(other, migrate.load_migrations())
    for table, values in (
        ("tool_call_log", "id, tool_name, args_summary, duration_ms, exit_code, error, result_truncated, result_bytes"),
        (
            "cost_log",
            "id, turn_id, requested_model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, "
            "cost_micros, duration_ms, usage_incomplete",
        ),
    ):
        rows = migrated.execute(f"SELECT {names}, {values} FROM {table} ORDER BY position").fetchall()
        places = ", ".join("?" * len(rows[0]))
        other.executemany(f"INSERT INTO {table} ({names}, {values}) VALUES ({places})", rows)
    for kind in usage_tables(SQLITE).kinds:
        sum_some(other, kind, 1000)
    assert sums == other.execute(SUMS).fetchall()
    assert len(sums) == 17


def test_a_replica_whose_epoch_is_over_leaves_the_sums_to_the_writer(migrated, postgres_database):
    migrated.execute("UPDATE ledger_writer SET epoch = 1")
    asked, tried, goes_on = itertools.count(), threading.Event(), threading.Event()

    def epoch() -> int:
        """Of the first transaction; none for the next ones until it is said so."""
        if next(asked) == 0 or goes_on.is_set():
            return 1
        tried.set()
        return 0

    with writing(postgres_database, epoch) as writer:
        assert writer.record(batch(*ROWS[:60])).result(60).stored == 60
        assert tried.wait(60)
        assert summed(migrated) == (0, 0)
        goes_on.set()
        assert writer.record(batch(*ROWS[60:90])).result(60).stored == 30
        wait_for(migrated, (90, 0))


def test_sums_that_an_older_replica_made_after_the_migration_are_made_anew(migrated, postgres_database):
    """It wrote until its end, and knew nothing of what all sessions with a label used."""
    labelled = "SELECT sum(calls) FROM named_usage WHERE name = 'labelled:user' AND step = 86400000"
    session = session_row(id="s1", created_at_ms=NOW_MS, labels={"user": "ada"})
    rows = [audit_row(session_id="s1", created_at_ms=NOW_MS - n) for n in range(40)]
    with writing(postgres_database) as writer:
        assert writer.record(batch(*rows[:30], sessions=[session])).result(60).stored == 31
        wait_for(migrated, (30, 0))
    assert migrated.execute(labelled).fetchall() == [(30,)]
    migrated.execute("DELETE FROM named_usage WHERE name = 'labelled:user'")
    with writing(postgres_database) as writer:
        assert writer.record(batch(*rows[30:])).result(60).stored == 10
        wait_for(migrated, (40, 0))
    assert migrated.execute(labelled).fetchall() == [(40,)]
