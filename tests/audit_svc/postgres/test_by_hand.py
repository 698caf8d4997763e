"""`check`, `producers`, `rebuild-rollups` and `rebuild-texts` say of a database what they say of a file."""

import json
from asyncio import to_thread
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from audit_svc.__main__ import program
from audit_svc.postgres.open.connection import Connection
from audit_svc.postgres.open.writership import Writership
from audit_svc.postgres.store import PostgresLedger
from audit_svc.postgres.text.trigrams import INDEX, MAKE_INDEX
from audit_svc.postgres.usage import recount
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.usage.session_sums import sum_sessions
from tests.audit_svc.aged import ago, make_ledger
from tests.audit_svc.samples import audit_row, batch
from tests.support.command_line import Result, invoke
from tests.support.copied import copy_tables

pytestmark = pytest.mark.postgres

NOT_POSTGRES = ("wal", "integrity", "texts")
"""What PostgreSQL looks after itself."""
HOURLY = "UPDATE tool_call_usage_hourly SET calls = calls + 1"
BROKEN = (
    "DELETE FROM sessions WHERE id = 'session-1'",
    "INSERT INTO recorders VALUES ('a'), ('b')",
    "INSERT INTO producers (id, recorded_by, highest_sequence, first_seen_at, last_seen_at) "
    "VALUES ('p', 'a', 10, 1, 2), ('p', 'b', 1, 0, 0)",
    "INSERT INTO producer_gaps (producer_id, recorded_by, first_sequence, last_sequence) "
    "VALUES ('p', 'a', 2, 4), ('nobody', 'b', 1, 2)",
    "INSERT INTO refusals (recorded_by, producer_id, code, minute, rows, first_sequence, last_sequence) "
    "VALUES ('a', 'p', 'invalid', 60000, 3, 1, 9)",
    HOURLY,
    "UPDATE tool_call_usage_daily SET durations = (SELECT durations FROM tool_call_usage_hourly LIMIT 1)",
    "DELETE FROM request_usage_daily",
    "UPDATE session_usage SET calls = calls + 1",
)
PRUNED = (
    "INSERT INTO pruned (id, pruned_before, tool_calls, errors, model_requests, input_tokens, output_tokens, "
    f"cost_micros, sessions, started_at, finished_at, pruned_by) VALUES (1, {ago(2)}, 0, 0, 0, 0, 0, 0, 0, 1, 2, '')"
)


@pytest.fixture
def twins(database: Path, migrated: Connection, postgres_database: str) -> tuple[Path, str, Connection]:
    """The same rows in a file and in a database."""
    make_ledger(database, hours=3, calls=40)
    with closing(open_for_writing(database)) as writing:
        for _ in sum_sessions(writing):
            pass
    with closing(open_for_reading(database)) as source:
        copy_tables(source, migrated)
    return database, postgres_database, migrated


def ask(where: Path | str, *words: str, code: int = 0) -> Result:
    ran = invoke(program, [*words, "--db", str(where)])
    assert ran.exit_code == code, ran.output
    return ran


def findings(ran: Result) -> list[dict[str, str]]:
    """All but what a store looks after itself."""
    return [told for told in map(json.loads, ran.stdout.splitlines()) if told["check"] not in NOT_POSTGRES]


def test_a_sound_ledger_is_sound_and_what_is_not_looked_at_says_so(twins):
    file, url, _ = twins
    told = findings(ask(url, "check", "--json"))
    assert told == findings(ask(file, "check", "--json"))
    assert {each["state"] for each in told} == {"ok"}
    said = ask(url, "check").stdout
    assert "note   wal        not looked at: PostgreSQL keeps its own log" in said
    assert "note   integrity  not looked at" in said
    assert "note   texts      there is no index of them" in said
    assert "integrity" in ask(url, "check", "--dry-run").stdout


def test_what_is_broken_is_told_alike_and_rollups_are_made_again(twins):
    file, url, connection = twins
    with closing(open_for_writing(file)) as writing:
        for statement in BROKEN:
            writing.execute(statement)
            connection.raw.execute(statement.encode())
    told = findings(ask(url, "check", "--json", code=1))
    assert told == findings(ask(file, "check", "--json", code=1))
    said = {(each["check"], each["state"]) for each in told}
    assert said > {(name, "wrong") for name in ("labels", "producers", "rollups")}
    assert said > {("producers", "note"), ("ids", "note")}
    assert "p" in (listed := ask(url, "producers", "--wide")).stdout
    assert listed == ask(file, "producers", "--wide")

    wrong = json.loads(ask(url, "rebuild-rollups", "--dry-run", "--json").stdout)["wrong_rows"]
    assert wrong == json.loads(ask(file, "rebuild-rollups", "--dry-run", "--json").stdout)["wrong_rows"]
    assert {"tool_call_usage_hourly", "tool_call_usage_daily", "request_usage_daily", "session_usage"} == set(wrong)
    for where in (url, file):
        assert ask(where, "rebuild-rollups").stdout == "rebuilt the rollups\n"
        assert ask(where, "rebuild-rollups", "--dry-run").stdout == "the rollups are what the rows say\n"
    with closing(open_for_writing(file)) as writing:
        writing.execute(PRUNED)
    connection.execute(PRUNED)
    told = findings(ask(url, "check", "--json", code=1))
    assert told == findings(ask(file, "check", "--json", code=1))
    assert ("pruned", "wrong") in {(each["check"], each["state"]) for each in told}


async def test_a_writer_beside_a_rebuild_believes_nothing_that_it_knew(migrated, postgres_database):
    """Who began after the look whether anybody writes."""
    ledger = PostgresLedger.open(postgres_database, queue_rows=1000)
    await ledger.record(batch(audit_row()))
    migrated.execute("UPDATE tool_call_usage_hourly SET calls = 7")
    recount.rebuild_rollups(migrated, lambda *_: None)
    await ledger.record(batch(audit_row()))
    await ledger.close()
    assert migrated.execute("SELECT sum(calls) FROM tool_call_usage_hourly").fetchall() == [(2,)]
    ask(postgres_database, "check")


async def test_a_database_that_a_replica_writes_to_is_not_rebuilt(migrated, postgres_database):
    async with Writership(postgres_database).running():
        told = await to_thread(ask, postgres_database, "rebuild-rollups", code=1)
        assert "stop all of them first" in told.stderr
        await to_thread(ask, postgres_database, "check")


def test_texts_have_an_index_or_not(twins):
    _, url, connection = twins
    for words in ((), ("--dry-run",)):
        assert MAKE_INDEX[1] in ask(url, "rebuild-texts", *words, code=1).stderr
    for statement in MAKE_INDEX:
        connection.execute(statement)
    assert "the index of texts is what the rows say" in ask(url, "rebuild-texts", "--dry-run").stdout
    connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = ?::regclass", (INDEX,))
    assert "texts      their index" in ask(url, "check", code=1).stdout
    assert "would mend 1 part" in ask(url, "rebuild-texts", "--dry-run").stdout
    assert "rebuilt the index of texts" in ask(url, "rebuild-texts").stdout
    assert "ok     texts" in ask(url, "check").stdout


def test_an_index_without_its_row_is_found_where_the_extension_is(twins):
    _, url, connection = twins
    try:
        connection.execute("CREATE EXTENSION amcheck")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("needs PostgreSQL's extension amcheck")
    assert "ok     integrity" in ask(url, "check").stdout
    connection.execute("ALTER TABLE producers ADD CONSTRAINT never CHECK (true)")
    connection.execute("UPDATE pg_index SET indisready = false WHERE indexrelid = 'producers_pkey'::regclass")
    connection.execute("INSERT INTO producers VALUES ('unseen', '', 1, 1, 1)")
    connection.execute("UPDATE pg_index SET indisready = true WHERE indexrelid = 'producers_pkey'::regclass")
    assert "wrong  integrity  producers_pkey" in ask(url, "check", code=1).stdout


def test_an_older_schema_and_a_server_that_is_not_there(postgres_database):
    assert "run migrate up" in ask(postgres_database, "check", code=1).stdout
    assert "run `audit-svc migrate up`" in ask(postgres_database, "producers", code=1).stderr
    secret = "postgresql://audit:hunter2@127.0.0.1:1/ledger"
    for command in ("check", "producers", "rebuild-rollups", "rebuild-texts"):
        ran = ask(secret, command, code=2 if command == "check" else 1)
        assert "cannot be reached" in ran.stderr
        assert "hunter2" not in ran.output
    assert "postgresql://127.0.0.1:1/ledger" in ask(secret, "check", "--dry-run").stdout
