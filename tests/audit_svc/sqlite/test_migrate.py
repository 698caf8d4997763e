"""The schema and its migrations."""

import itertools
import json
from pathlib import Path
from typing import Any

import apsw
import pytest
from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2

from audit_svc.errors import MigrationRefused
from audit_svc.ledger.migrations import Migration
from audit_svc.ledger.tables import TOOL_CALL_COLUMNS
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.migrate import load_migrations
from audit_svc.sqlite.text.text_index import index_rows
from audit_svc.sqlite.usage import recount
from audit_svc.sqlite.usage.session_sums import sum_sessions
from tests.audit_svc.asking import list_sessions, list_tool_calls, summarize_usage
from tests.audit_svc.migrations import check_0025
from tests.audit_svc.samples import question

A = Migration(1, "a", "CREATE TABLE a (x TEXT) STRICT;", "DROP TABLE a;")
B = Migration(7, "b", "CREATE TABLE b (x TEXT) STRICT; CREATE INDEX b_x ON b (x);", "DROP TABLE b;")
C = Migration(8, "c", "ALTER TABLE b ADD COLUMN y TEXT;", "ALTER TABLE b DROP COLUMN y;")
D = Migration(9, "d", "CREATE TABLE d (x TEXT) STRICT;", "DROP TABLE d;")


@pytest.fixture
def empty(tmp_path: Path) -> apsw.Connection:
    return apsw.Connection(str(tmp_path / "m.db"))


def tables(connection: apsw.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def states(connection: apsw.Connection, *migrations: Migration) -> dict[int, str]:
    return {entry.version: entry.state for entry in migrate.status(connection, migrations)}


def columns(connection: apsw.Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def test_migration_0007_makes_exactly_the_required_columns_and_indexes(empty):
    migrate.up(empty, [migration for migration in load_migrations() if migration.version == 7])
    assert " ".join(columns(empty, "tool_call_log")) == (
        "id session_id engine tool_name args_summary duration_ms exit_code http_status error "
        "result_truncated result_bytes created_at"
    )
    indexes = {
        name: [column for (column,) in empty.execute("SELECT name FROM pragma_index_info(?)", (name,))]
        for (name,) in empty.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    }
    assert indexes == {
        "idx_tool_call_log_session": ["session_id", "created_at"],
        "idx_tool_call_log_tool": ["engine", "tool_name", "created_at"],
        "idx_tool_call_log_error": ["error"],
    }
    (sql,) = empty.execute("SELECT sql FROM sqlite_schema WHERE name = 'idx_tool_call_log_error'").fetchall()[0]
    assert sql.endswith("WHERE error IS NOT NULL")


def test_sessions_and_cost_log_are_in_the_same_database_each_from_its_own_migration(empty):
    labels = [migration.label for migration in load_migrations()]
    assert labels[:3] == ["0001_sessions", "0002_cost_log", "0007_tool_call_log"]
    migrate.up(empty, load_migrations())
    assert {"sessions", "cost_log", "tool_call_log"} <= tables(empty)


def test_up_applies_what_is_pending_across_gaps_and_down_undoes_all_above_a_version(empty):
    assert states(empty, A, B) == {1: "pending", 7: "pending"}
    assert migrate.up(empty, [A, B]) == [A, B]
    assert migrate.up(empty, [A, B, C]) == [C]
    assert migrate.up(empty, [A, B, C]) == []
    assert states(empty, A, B, C) == {1: "applied", 7: "applied", 8: "applied"}
    assert migrate.down(empty, [A, B, C], to=1) == [C, B]
    assert states(empty, A, B, C) == {1: "applied", 7: "pending", 8: "pending"}
    assert tables(empty) == {"a", "schema_migrations"}


VERSIONS = [0, *[migration.version for migration in load_migrations()]]


@pytest.mark.parametrize(
    "version",
    [pytest.param(each, marks=() if each in (0, 7, *VERSIONS[-2:]) else pytest.mark.long) for each in VERSIONS],
)
def test_every_version_can_be_reached_and_left_both_ways_with_rows_kept(empty, version):
    migrations = load_migrations()
    migrate.up(empty, [migration for migration in migrations if migration.version <= version])
    if version >= 7:
        empty.execute(
            "INSERT INTO tool_call_log (id, session_id, engine, tool_name, args_summary, duration_ms, "
            "result_truncated, result_bytes, created_at) VALUES ('old', 's', 'e', 't', '{}', 1, 0, 2, 3)"
        )
    migrate.up(empty, migrations)
    assert migrate.pending(empty, migrations) == []
    if version >= 7:
        row = empty.execute("SELECT id, outcome, model, redaction_version FROM tool_call_log").fetchall()
        assert row == [("old", None, "", 0)]
    migrate.down(empty, migrations, to=version)
    migrate.down(empty, migrations, to=0)
    assert tables(empty) == {"schema_migrations"}
    assert migrate.up(empty, migrations) == migrations


def fill(connection: apsw.Connection, rows: int) -> None:
    """Rows of fifty sessions each with what the required migrations know, over a hundred days."""
    connection.execute(
        "WITH numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows - 1) "
        "INSERT INTO tool_call_log (id, session_id, engine, tool_name, args_summary, duration_ms, exit_code, error, "
        "result_truncated, result_bytes, created_at) SELECT printf('%08d', n), 's' || n / 50, 'engine-' || n % 3, "
        "'tool-' || n % 7, 'path: src/part-' || n % 997, n % 5000, nullif(n % 4, 3), iif(n % 20, NULL, 'broken'), 0, "
        "n, :begin + n * 86400 FROM numbers",
        {"rows": rows, "begin": 1_780_000_000_000},
    )
    connection.execute(
        "INSERT INTO cost_log (id, session_id, turn_id, engine, model, requested_model, input_tokens, output_tokens, "
        "cached_input_tokens, reasoning_tokens, cost_micros, duration_ms, created_at, usage_incomplete) SELECT id, "
        "session_id, '', engine, 'm', 'm', 100, 20, 0, 0, nullif(result_bytes % 10, 0), 5, created_at, 0 "
        "FROM tool_call_log WHERE result_bytes % 3 = 0"
    )
    connection.execute(
        "INSERT INTO sessions SELECT session_id, 1, 'engine-0', 'm', 'idle', 1, 1, 50, 0, 0, 0, 0, min(created_at), "
        "max(created_at) FROM tool_call_log GROUP BY 1"
    )
    connection.execute("INSERT INTO session_labels SELECT id, 'user', 'u' || substr(id, 2) % 100 FROM sessions")


def answers(connection: apsw.Connection) -> list[Message]:
    """What a ledger says of its rows: by rollups, by sums of sessions, by texts and by each index of a listing."""
    ends: dict[str, Any] = {"created_from_ms": 1_780_900_000_000, "created_before_ms": 1_786_543_210_000}
    all_time: dict[str, Any] = {}
    usage: list[list[str]] = [[], ["engine", "tool", "outcome"], ["day"], ["session"], ["label:user"]]
    lists: list[dict[str, Any]] = [{"args_contain": "part-77"}, {"has_error": True}, {"engine": "engine-1"}]
    return [
        *(
            summarize_usage(connection, question(questions_pb2.SummarizeUsageRequest, group_by=groups, **times))
            for groups in usage
            for times in (all_time, ends)
        ),
        *(list_tool_calls(connection, question(questions_pb2.ListToolCallsRequest, **filters)) for filters in lists),
        list_sessions(connection, question(questions_pb2.ListSessionRecordsRequest, labels={"user": "u7"})),
    ]


def test_migration_0024_takes_calls_without_a_duration_out_of_the_histograms(empty):
    migrations = load_migrations()
    migrate.up(empty, [migration for migration in migrations if migration.version <= 7])
    fill(empty, 400)
    migrate.up(empty, [migration for migration in migrations if migration.version <= 9])
    empty.execute("UPDATE tool_call_log SET outcome = iif(duration_ms % 2, 'succeeded', 'interrupted')")
    migrate.up(empty, [migration for migration in migrations if migration.version <= 23])  # 0010 makes the rollups
    empty.execute("UPDATE session_usage_summed SET tool_calls = 400, model_requests = 134")
    assert recount.rollup_differences(empty)["tool_call_usage_daily"] > 0
    migrate.up(empty, migrations)
    assert set(recount.rollup_differences(empty).values()) == {0}
    assert empty.execute("SELECT tool_calls, model_requests FROM session_usage_summed").fetchall() == [(0, 0)]


def test_migration_0025_has_all_sums_made_anew_and_down_takes_away_those_of_any_value(empty):
    check_0025(migrate, empty)


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "every"), [(2_000, False), pytest.param(20_000, True, marks=pytest.mark.long(nightly=True))]
)
def test_rows_answer_the_same_whatever_versions_they_went_through(empty, rows, every):
    """From each version to the next and the last, or to every later; what a version makes of rows it makes again."""
    migrations = load_migrations()
    versions = [migration.version for migration in migrations if migration.version >= 7]
    migrate.up(empty, [migration for migration in migrations if migration.version <= 7])
    fill(empty, rows)
    kept = [f"SELECT {', '.join(columns(empty, table))} FROM {table}" for table in ("tool_call_log", "cost_log")]
    before = [empty.execute(sql).fetchall() for sql in kept]
    seen: list[list[Message]] = []
    for at, version in enumerate(versions):
        migrate.up(empty, [migration for migration in migrations if migration.version <= version])
        later = versions[at + 1 :]
        for other in later if every else sorted({*later[:1], *later[-1:]}):
            migrate.up(empty, [migration for migration in migrations if migration.version <= other])
            if other == versions[-1]:
                # Half of it has sums and an index of texts yet, as when the writer was interrupted.
                for work in (sum_sessions, index_rows):
                    list(itertools.islice(work(empty), 50))
                seen.append(answers(empty))
            migrate.down(empty, migrations, to=version)
        assert [empty.execute(sql).fetchall() for sql in kept] == before
    assert migrate.pending(empty, migrations) == []
    seen.append(answers(empty))
    assert all(one == seen[0] for one in seen)


@pytest.mark.long
def test_a_hundred_thousand_rows_of_before_have_nobody_who_acted_and_come_back_as_they_were(empty):
    """What was not recorded then is unset now, and never a guess."""
    known = load_migrations()
    migrate.up(empty, [migration for migration in known if migration.version <= 16])
    rows = 100_000
    empty.execute(
        "INSERT INTO tool_call_log (id, session_id, engine, tool_name, args_summary, duration_ms, result_truncated, "
        "result_bytes, created_at, outcome) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT ?) "
        "SELECT 'c' || x, 's' || x % 100, 'e', 'bash', '{}', x, 0, 0, 1700000000000 + x, 'succeeded' FROM n",
        (rows,),
    )
    before = empty.execute("SELECT count(*), sum(duration_ms), max(created_at) FROM tool_call_log").fetchall()
    schema = empty.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    migrate.up(empty, known)
    new = [column.name for column in TOOL_CALL_COLUMNS[20:]]
    unset = " AND ".join(f"{name} IS NULL" for name in new)
    assert empty.execute(f"SELECT count(*) FROM tool_call_log WHERE {unset}").fetchall() == [(rows,)]
    read = list_tool_calls(empty, question(questions_pb2.ListToolCallsRequest, page_size=1)).tool_calls[0].tool_call
    assert [name for name in ("agent", "mcp_server", "args_digest", "decision") if read.HasField(name)] == []
    assert (read.principal, read.source) == ("", 0)
    migrate.down(empty, known, to=16)
    assert empty.execute("SELECT count(*), sum(duration_ms), max(created_at) FROM tool_call_log").fetchall() == before
    assert empty.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall() == schema


def test_a_file_that_fails_leaves_the_database_as_it_was_before_that_file(empty):
    broken = Migration(7, "broken", "CREATE TABLE half (x TEXT) STRICT; CREATE TABLE a (x TEXT) STRICT;", "")
    with pytest.raises(MigrationRefused, match="0007_broken failed"):
        migrate.up(empty, [A, broken])
    assert tables(empty) == {"a", "schema_migrations"}
    assert states(empty, A, broken) == {1: "applied", 7: "pending"}
    assert not empty.in_transaction


def test_an_edited_migration_is_refused(empty):
    migrate.up(empty, [A, B])
    edited = Migration(B.version, B.name, B.up + "-- later thought", B.down)
    assert states(empty, A, edited) == {1: "applied", 7: "edited"}
    with pytest.raises(MigrationRefused, match="0007_b was edited after it was applied"):
        migrate.up(empty, [A, edited])
    with pytest.raises(MigrationRefused, match="0007_b was edited after it was applied"):
        migrate.down(empty, [A, edited], to=0)


def test_a_migration_that_the_code_does_not_know_is_refused(empty):
    migrate.up(empty, [A, B, C])
    assert states(empty, A, B)[8] == "unknown"
    with pytest.raises(MigrationRefused, match="0008_c, which this version of audit-svc does not know"):
        migrate.up(empty, [A, B])


def test_a_migration_that_comes_before_an_applied_one_is_refused(empty):
    migrate.up(empty, [A, D])
    with pytest.raises(MigrationRefused, match="0007_b comes before 0009"):
        migrate.up(empty, [A, B, D])


@pytest.mark.parametrize(
    ("by_hand", "problem"),
    [
        ("DROP INDEX b_x", "index b_x is missing"),
        ("DROP TABLE b", "index b_x is missing"),
        ("ALTER TABLE b ADD COLUMN z TEXT", "table b differs"),
        ("CREATE TABLE stranger (x TEXT)", "table stranger is not of any migration"),
        ("CREATE TRIGGER t AFTER INSERT ON b BEGIN DELETE FROM b; END", "trigger t is not of any migration"),
        ("DELETE FROM schema_migrations WHERE version = 7", "index b_x is not of any migration"),
    ],
)
def test_a_dirty_database_is_refused(empty, by_hand, problem):
    migrate.up(empty, [A, B])
    empty.execute(by_hand)
    with pytest.raises(MigrationRefused, match=f"the database is dirty: {problem}"):
        migrate.pending(empty, [A, B])


def test_a_ledger_table_of_another_program_is_refused(empty):
    empty.execute("CREATE TABLE schema_migrations (version TEXT, dirty INTEGER)")
    with pytest.raises(MigrationRefused, match="is not audit-svc's"):
        migrate.up(empty, [A])


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (["1_a.up.sql"], "is not called"),
        (["0001_a.up.sql"], "has no 0001_a.down.sql"),
        (["0001_a.up.sql", "0001_a.down.sql", "0001_b.up.sql", "0001_b.down.sql"], "has the version of 0001_a"),
    ],
)
def test_a_folder_of_migrations_that_is_not_as_it_should_be_is_refused(tmp_path, files, problem):
    for file in files:
        (tmp_path / file).write_text("SELECT 1;")
    with pytest.raises(MigrationRefused, match=problem):
        load_migrations(tmp_path)


def test_every_table_is_strict_and_knows_a_row_by_its_id_and_its_recorder(empty):
    migrate.up(empty, load_migrations())
    own = "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
    for name, strict in empty.execute(own).fetchall():
        assert strict or name.startswith("sqlite_"), name
    for name in ("sessions", "cost_log", "tool_call_log", "producers"):
        columns = 'SELECT i.name FROM pragma_index_list(?) l, pragma_index_info(l.name) i WHERE l."unique"'
        assert [key for (key,) in empty.execute(columns, (name,))] == ["id", "recorded_by"]


def test_what_all_migrations_make_is_known_without_applying_them():
    """After a new migration, write what this says into the file: until then each reader applies them all."""
    migrations = migrate.load_migrations()
    assert json.loads(migrate.KNOWN.read_text()) == migrate.known(migrations, migrate.schema_of(tuple(migrations)))
