"""PostgreSQL's migrations: up and down, by several replicas at once, and what is refused."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from audit_svc.errors import MigrationRefused, StoreRefused
from audit_svc.ledger import histogram
from audit_svc.ledger.migrations import Migration
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect
from audit_svc.postgres.open.writership import Writership
from tests.audit_svc.migrations import check_0025

pytestmark = pytest.mark.postgres

A = Migration(1, "a", "CREATE TABLE a (x text);", "DROP TABLE a;")
B = Migration(7, "b", "CREATE TABLE b (x text);", "DROP TABLE b;")
BROKEN = Migration(8, "broken", "CREATE TABLE c (x text); SELECT 1 / 0;", "DROP TABLE c;")


def states(connection: Connection, *migrations: Migration) -> dict[int, str]:
    return {entry.version: entry.state for entry in migrate.status(connection, migrations)}


def test_the_schema_is_what_the_file_says(migrated):
    """Where a migration was added: write schema_of() of a migrated database into migrations/schema.json."""
    assert migrate.schema_of(migrated) == json.loads(migrate.KNOWN.read_text())
    assert migrate.pending(migrated, migrate.load_migrations()) == []


def test_down_leaves_nothing(migrated):
    migrate.down(migrated, migrate.load_migrations(), 0)
    assert migrate.schema_of(migrated) == {}
    assert migrate.up(migrated, migrate.load_migrations()) == migrate.load_migrations()


def test_migration_0024_takes_calls_without_a_duration_out_of_the_histograms(empty):
    migrations = migrate.load_migrations()
    migrate.up(empty, [migration for migration in migrations if migration.version <= 23])
    for outcome in ("succeeded", "interrupted"):
        empty.execute(
            "INSERT INTO tool_call_usage_daily VALUES (0, 'e', 'm', 'bash', ?, 1, 0, 0, 0, 0, 0, ?)", (outcome, b"\1\1")
        )
    migrate.up(empty, migrations)
    rows = empty.execute("SELECT outcome, durations FROM tool_call_usage_daily ORDER BY outcome").fetchall()
    assert [(outcome, bytes(durations)) for outcome, durations in rows] == [
        ("interrupted", histogram.to_blob(0)),
        ("succeeded", histogram.to_blob(histogram.count([0]))),
    ]


def test_migration_0025_has_all_sums_made_anew_and_down_takes_away_those_of_any_value(empty):
    check_0025(migrate, empty)


def test_states_and_what_fails_is_taken_back(empty):
    assert migrate.up(empty, [A]) == [A]
    assert states(empty, A, B) == {1: "applied", 7: "pending"}
    with pytest.raises(MigrationRefused, match="0008_broken failed, and was taken back: division by zero"):
        migrate.up(empty, [A, B, BROKEN])
    assert states(empty, A, B, BROKEN) == {1: "applied", 7: "applied", 8: "pending"}
    assert "column c.x" not in migrate.schema_of(empty)
    edited = Migration(7, "b", "CREATE TABLE b (y text);", "DROP TABLE b;")
    with pytest.raises(MigrationRefused, match="0007_b was edited"):
        migrate.up(empty, [A, edited])
    with pytest.raises(MigrationRefused, match="does not know"):
        migrate.up(empty, [A])


def test_replicas_that_start_together_migrate_once(postgres_database):
    def start() -> int:
        with closing(connect(postgres_database, writes=True)) as connection:
            return len(migrate.up(connection, migrate.load_migrations()))

    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(lambda _: start(), range(6)))
    assert sorted(applied) == [0, 0, 0, 0, 0, len(migrate.load_migrations())]


@pytest.mark.parametrize(
    ("by_hand", "problem"),
    [
        ("DROP INDEX idx_tool_call_log_tool", "index idx_tool_call_log_tool is missing"),
        ("ALTER TABLE cost_log ALTER error SET NOT NULL", "column cost_log.error differs"),
        ("ALTER TABLE cost_log DROP CONSTRAINT cost_log_id_recorded_by_key", "cost_log_id_recorded_by_key is missing"),
        ("ALTER FUNCTION remove_rows SECURITY INVOKER", "function remove_rows.* differs"),
    ],
)
def test_what_was_changed_by_hand_is_refused(migrated, by_hand, problem):
    migrated.execute(by_hand)
    with pytest.raises(MigrationRefused, match=problem):
        migrate.refuse_older(migrated)


def test_an_index_of_the_operators_is_the_operators_matter(migrated):
    migrated.execute("CREATE INDEX mine ON tool_call_log (principal)")
    migrate.refuse_older(migrated)


def test_a_database_without_the_schema_is_refused_with_what_to_do(empty):
    with pytest.raises(MigrationRefused, match=r"0022_ledger, .* not applied\): run `audit-svc migrate up` as its"):
        migrate.refuse_older(empty)


def test_a_database_with_sessions_is_refused(empty):
    empty.execute("CREATE TABLE conversation_migrations (version integer)")
    with pytest.raises(MigrationRefused, match="has the sessions of gateways"):
        migrate.up(empty, migrate.load_migrations())
    assert "column tool_call_log.id" not in migrate.schema_of(empty)


def test_a_user_without_rights_is_told_what_gives_them(migrated, postgres_database):
    user = f"user_{os.urandom(4).hex()}"
    migrated.execute(f"CREATE ROLE {user} LOGIN")
    url = postgres_database.replace("onrecord@", f"{user}@")
    try:
        with closing(connect(url)) as connection, pytest.raises(MigrationRefused, match=r"service-role\.sql"):
            migrate.refuse_older(connection)
    finally:
        migrated.execute(f"DROP ROLE {user}")


def test_a_wrong_parameter_is_refused_wherever_the_url_is_read():
    for read in (connect, Writership):
        with pytest.raises(StoreRefused, match="libpq cannot read it"):
            read("postgresql://ada:secret@localhost/ledger?sslmod=x")
