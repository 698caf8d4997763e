"""Rows by a label of many sessions: its sessions are read once, and not looked up for each row on the way."""

import pytest
from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.query import query_of
from audit_svc.postgres.open.connection import Connection
from audit_svc.postgres.read.database import PostgresDatabase
from audit_svc.sql.read import listing, queries, tool_calls

pytestmark = pytest.mark.postgres

LABELS = {"team": "a"}
CALLS = questions_pb2.ListToolCallsRequest(filter=questions_pb2.ToolCallFilter(labels=LABELS))
SESSIONS = questions_pb2.ListSessionRecordsRequest(filter=questions_pb2.SessionFilter(labels=LABELS))


def statements(database: PostgresDatabase) -> list[listing.Statement]:
    return [
        tool_calls.plan_of(database, query_of(CALLS).filter).statement([], 10),
        queries.sessions_statement(database, query_of(SESSIONS)),
    ]


@pytest.mark.parametrize(
    ("sessions", "at_once"), [(listing.FEW_SESSIONS + 1, True), (listing.SOME_SESSIONS + 1, False)]
)
def test_the_sessions_of_a_label_are_read_at_once_unless_they_are_too_many(
    migrated: Connection, sessions: int, at_once: bool
) -> None:
    migrated.execute(
        "INSERT INTO session_labels SELECT 's' || n, '', 'team', 'a' FROM generate_series(1, ?) AS n", (sessions,)
    )
    migrated.execute("ANALYZE session_labels")
    for sql, arguments in statements(PostgresDatabase(migrated)):
        plan = "\n".join(line for (line,) in migrated.execute(f"EXPLAIN {sql}", arguments))
        assert ("hashed SubPlan" in plan) == at_once, plan
