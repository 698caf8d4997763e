"""Usage under names follows the rows and the labels of sessions in PostgreSQL as in SQLite."""

import time
from typing import Any

import pytest
from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.query import query_of
from audit_svc.postgres.read.database import POSTGRES, PostgresDatabase
from audit_svc.postgres.write.writer import Writer
from audit_svc.sql.usage import named_usage, summaries
from audit_svc.sql.usage.named_recount import named_differences, trait_differences
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, question, session_row

pytestmark = pytest.mark.postgres
HOUR_MS = 3_600_000
BEGIN = NOW_MS - NOW_MS % HOUR_MS - 9 * HOUR_MS
CALLS = [audit_row(session_id=f"s{n % 3}", principal=("ada", "")[n % 2], created_at_ms=BEGIN + n) for n in range(9)]
COSTS = [cost_row(session_id="s1", principal="ada", created_at_ms=BEGIN + n) for n in range(4)]


def sessions(revision: int, *teams: str) -> list[Any]:
    return [
        session_row(id=f"s{n}", revision=revision, labels={"team": team} if team else {})
        for n, team in enumerate(teams)
    ]


def test_sums_under_names_are_those_of_the_rows(migrated, postgres_database, monkeypatch):
    monkeypatch.setattr(named_usage, "ROWS_MOVED", 2)

    def calls_by(name: str) -> dict[str, tuple[int, int]]:
        asked = question(
            questions_pb2.SummarizeUsageRequest,
            group_by=[name],
            created_from_ms=BEGIN,
            created_before_ms=BEGIN + HOUR_MS,
        )
        found = summaries.summarize_usage(PostgresDatabase(migrated), query_of(asked)).rows
        asked.order, asked.page_size = questions_pb2.USAGE_ORDER_COST, 1
        (first,) = summaries.summarize_usage(PostgresDatabase(migrated), query_of(asked)).rows
        assert first == min(found, key=lambda row: (-row.usage.known_cost_micros, -row.tool_calls, *row.values))
        return {row.values[0]: (row.tool_calls, row.usage.requests) for row in found}

    def wait_until_summed() -> None:
        until = time.monotonic() + 60
        summed = "SELECT tool_calls, model_requests, (SELECT count(*) FROM relabelled) FROM session_usage_summed"
        while migrated.execute(summed).fetchall()[0] != (9, 4, 0):
            assert time.monotonic() < until
            time.sleep(0.02)

    writer = Writer(postgres_database, 10_000)
    try:
        writer.record(batch(*CALLS, model_requests=COSTS, sessions=sessions(1, "red", "blue", ""))).result(60)
        wait_until_summed()
        assert calls_by("label:team") == {"": (3, 0), "blue": (3, 4), "red": (3, 0)}
        assert calls_by("principal") == {"": (4, 0), "ada": (5, 4)}
        writer.record(batch(sessions=sessions(2, "", "red", "red"))).result(60)
        assert calls_by("label:team") == {"": (3, 0), "red": (6, 4)}
        wait_until_summed()
        assert calls_by("label:team") == {"": (3, 0), "red": (6, 4)}
    finally:
        writer.close()
    assert named_differences(migrated, POSTGRES) == trait_differences(migrated, POSTGRES) == 0
