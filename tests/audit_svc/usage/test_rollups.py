"""Rollups are what the rows say, however the rows came."""

import json
import random
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger import histogram
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.steps import HOUR_MS, STEPS
from audit_svc.ledger.tables import WITHOUT_DURATION
from audit_svc.ledger.usage import MAX_SUMMED, Usage
from audit_svc.sql.usage.rollups import HAS_NO_DURATION, ROLLUPS
from audit_svc.sql.write import rollups
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.usage import recount
from audit_svc.sqlite.write.inserts import Inserts
from audit_svc.sqlite.write.writer import Writer
from demo.processes import run_command
from tests.audit_svc.empty import empty_in_memory, write_empty
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, request
from tests.support.examples import examples

HOURS = st.sampled_from([NOW_MS, NOW_MS - HOUR_MS, NOW_MS - 30 * HOUR_MS])
LARGE = st.sampled_from([0, 1, 31, 32, 33, 1000, 3_600_001, 2**36 - 1, 2**36, 2**63 - 1])

calls = st.builds(
    audit_row,
    id=st.sampled_from(["a", "b", "c", "d", "e", "f", ""]),
    engine=st.sampled_from(["", "ollama"]),
    tool_name=st.sampled_from(["read", "bash"]),
    outcome=st.sampled_from([common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_INTERRUPTED]),
    exit_code=st.sampled_from([None, 0, 1, -9]),
    http_status=st.sampled_from([None, 200, 399, 400, 503]),
    error=st.sampled_from([None, "failed"]),
    duration_ms=LARGE,
    result_bytes=LARGE,
    created_at_ms=HOURS,
)
costs = st.builds(
    cost_row,
    id=st.sampled_from(["a", "b", "c", "d"]),
    model=st.sampled_from(["", "gpt"]),
    error=st.sampled_from([None, "failed"]),
    cost_micros=st.one_of(st.none(), LARGE),
    input_tokens=LARGE,
    shadow=st.booleans(),
    created_at_ms=HOURS,
)
requests = st.builds(record_request, tool_calls=st.lists(calls, max_size=8), model_requests=st.lists(costs, max_size=4))


def truth(connection: apsw.Connection) -> dict[str, dict[tuple[Any, ...], list[Any]]]:
    """The rollups, counted row by row in the plainest way."""
    tables: dict[str, dict[tuple[Any, ...], list[Any]]] = {rollup.name: {} for rollup in ROLLUPS}
    for at, engine, model, tool, outcome, error, code, status, size, took in connection.execute(
        "SELECT created_at, engine, model, tool_name, outcome, error, exit_code, http_status, result_bytes, "
        "duration_ms FROM tool_call_log"
    ):
        for step in STEPS:
            key = (at // step.ms * step.ms, engine, model, tool, outcome or "")
            sums = tables[f"tool_call_usage_{step.name}"].setdefault(key, [0, 0, 0, 0, 0, 0, []])
            sums[0] += 1
            sums[1] += error is not None
            sums[2] += code not in (None, 0)
            sums[3] += (status or 0) >= 400
            sums[4] += min(size, 2**36 - 1)
            sums[5] += min(took, 2**36 - 1)
            sums[6] += [took] if outcome not in WITHOUT_DURATION else []
    for at, engine, model, error, *tokens, cost in connection.execute(
        "SELECT created_at, engine, model, error, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, "
        "cost_micros FROM cost_log"
    ):
        for step in STEPS:
            sums = tables[f"request_usage_{step.name}"].setdefault((at // step.ms * step.ms, engine, model), [0] * 8)
            added = [1, error is not None, *(min(n, 2**36 - 1) for n in (*tokens, cost or 0)), cost is None]
            sums[:] = [one + other for one, other in zip(sums, added, strict=True)]
    return tables


def kept(connection: apsw.Connection) -> dict[str, dict[tuple[Any, ...], list[Any]]]:
    """The rollups as they are in the database."""
    return {
        rollup.name: {
            row[: len(rollup.key)]: list(row[len(rollup.key) :])
            for row in connection.execute(f"SELECT * FROM {rollup.name}")
        }
        for rollup in ROLLUPS
    }


def same(connection: apsw.Connection) -> bool:
    """Whether the rollups are the truth."""
    true = truth(connection)
    for rollup in ROLLUPS:
        for sums in true[rollup.name].values() if rollup.kind == "tool_call_usage" else ():
            sums[6] = histogram.to_blob(sum(1 << (40 * histogram.bucket(took)) for took in sums[6]))
    return true == kept(connection)


@pytest.mark.long
@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.lists(requests, max_size=3), max_size=4))
def test_rollups_equal_the_rows_whatever_batches_duplicates_conflicts_and_restarts_came(tmp_path_factory, runs):
    database = tmp_path_factory.mktemp("rollups") / "audit.db"
    write_empty(database)
    for batches in runs:
        connection = open_for_writing(database)
        writer = Writer(connection, 50_000)
        answers = [writer.record(read_batch(batch, NOW_MS)) for batch in batches]
        for answer in answers:
            answer.result()
        writer.close()
        connection = open_for_writing(database)
        assert same(connection)
        assert set(recount.rollup_differences(connection).values()) == {0}
        connection.close()


@pytest.mark.long
@settings(max_examples=examples(40), deadline=None)
@given(commits=st.lists(st.tuples(requests, st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"]))))
def test_rollups_equal_the_rows_when_commits_are_taken_back(commits):
    connection = empty_in_memory()
    inserts = Inserts(connection)
    for sent, end in commits:
        batch = read_batch(sent, NOW_MS)
        connection.execute("BEGIN")
        inserts.write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
        connection.execute(end)
        if end == "COMMIT":
            inserts.committed()
        assert same(connection)
    assert set(recount.rollup_differences(connection).values()) == {0}
    connection.close()


def record(writer: Writer, *rows: audit_pb2.AuditRow, model_requests: Any = ()) -> None:
    writer.record(read_batch(request(*rows, model_requests=model_requests), NOW_MS)).result()


def some_rows(count: int) -> list[audit_pb2.AuditRow]:
    chance = random.Random(5)
    return [
        audit_row(
            tool_name=chance.choice(["read", "bash"]),
            duration_ms=int(chance.lognormvariate(5, 3)),
            created_at_ms=NOW_MS - chance.randrange(50) * HOUR_MS,
            error=chance.choice([None, "failed"]),
        )
        for _ in range(count)
    ]


def test_a_ledger_of_before_the_rollups_is_filled_when_it_is_opened(connection, database):
    writer = Writer(connection, 50_000)
    record(writer, *some_rows(500), model_requests=[cost_row(), cost_row(cost_micros=None)])
    writer.close()
    connection = open_for_writing(database)
    migrations = migrate.load_migrations()
    assert migrate.down(connection, migrations, to=9)
    migrate.up(connection, migrations)
    assert same(connection)
    assert set(recount.rollup_differences(connection).values()) == {0}
    connection.close()


@pytest.mark.long
@pytest.mark.parametrize("alike", [300, 70_000])
def test_counts_of_two_bytes_and_of_five_are_made_from_the_rows_as_the_writer_makes_them(alike):
    connection = empty_in_memory()
    connection.execute(
        "WITH numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
        "INSERT INTO tool_call_log (id, session_id, engine, model, tool_name, args_summary, duration_ms, result_bytes, "
        "result_truncated, created_at) SELECT n, 's', 'e', 'm', 't', '', 40 + (n = 1), 0, 0, ? FROM numbers",
        (alike, NOW_MS - 2 * HOUR_MS),
    )
    recount.rebuild_rollups(connection)
    assert same(connection)
    connection.close()


def test_what_differs_is_counted_and_a_rebuild_mends_it(writer, database):
    record(writer, *some_rows(500), model_requests=[cost_row(created_at_ms=NOW_MS - HOUR_MS)])
    other = apsw.Connection(str(database))
    other.execute("UPDATE tool_call_usage_hourly SET calls = calls + 1 WHERE rowid <= 3")
    other.execute("DELETE FROM tool_call_usage_daily WHERE rowid = 1")
    changed = {rollup.name: 1 for rollup in ROLLUPS} | {"tool_call_usage_hourly": 3}
    for rollup in ROLLUPS:
        if rollup.name not in ("tool_call_usage_hourly", "tool_call_usage_daily"):
            key = ", ".join(rollup.key)
            first = f"SELECT {key} FROM {rollup.name} LIMIT 1"
            changes = "durations = x'0107'" if rollup.kind == "tool_call_usage" else "requests = requests + 1"
            other.execute(f"UPDATE {rollup.name} SET {changes} WHERE ({key}) IN ({first})")
    reading = open_for_reading(database)
    reading.pragma("query_only", False)
    assert recount.rollup_differences(reading) == changed
    recount.rebuild_rollups(other)
    assert same(other)
    assert set(recount.rollup_differences(reading).values()) == {0}
    reading.close()
    other.close()


def test_a_batch_that_is_taken_back_leaves_nothing_in_the_rollups(writer, connection, reading):
    record(writer, *some_rows(50))
    before = connection.pragma("max_page_count")
    connection.pragma("max_page_count", connection.pragma("page_count"))
    refused = writer.record(read_batch(request(*[audit_row(args_summary="x" * 4000) for _ in range(100)]), NOW_MS))
    assert refused.exception() is not None
    assert same(reading)
    connection.pragma("max_page_count", before)
    record(writer, *some_rows(50))
    assert same(reading)


def test_what_others_change_in_the_rollups_is_seen_by_the_next_commit(writer, database, reading):
    record(writer, *some_rows(50))

    def prune(connection: apsw.Connection) -> None:
        before = (NOW_MS // HOUR_MS - 7) * HOUR_MS
        connection.execute("DELETE FROM tool_call_log WHERE created_at < ?", (before,))
        rollups.drop_rollups(connection, before)

    writer.run(prune).result()
    record(writer, *some_rows(50))
    assert same(reading)
    other = apsw.Connection(str(database))
    other.execute("DELETE FROM tool_call_log")
    for rollup in ROLLUPS:
        other.execute(f"DELETE FROM {rollup.name}")
    other.close()
    record(writer, *some_rows(50))
    assert same(reading)


@pytest.mark.long
def test_the_command_rebuilds_a_ledger_that_nobody_has_open(connection, database):
    writer = Writer(connection, 50_000)
    record(writer, *some_rows(50))
    writer.close()
    broken = open_for_writing(database)
    broken.execute("DELETE FROM tool_call_usage_hourly")
    broken.close()
    dry = run_command("audit_svc", {}, "rebuild-rollups", "--db", str(database), "--dry-run", "--json")
    assert json.loads(dry.stdout)["wrong_rows"].keys() == {"tool_call_usage_hourly"}
    assert run_command("audit_svc", {}, "rebuild-rollups", "--db", str(database)).stdout == "rebuilt the rollups\n"
    dry = run_command("audit_svc", {}, "rebuild-rollups", "--db", str(database), "--dry-run")
    assert dry.stdout == "the rollups are what the rows say\n"
    mended = open_for_writing(database)
    assert same(mended)
    mended.close()


@pytest.mark.parametrize("hours", [0, 7, 24, 60, 24 * 9, 24 * 70])
def test_dropped_hours_leave_the_rollups_of_what_is_left(writer, connection, database, hours):
    long_ago = [NOW_MS - days * 24 * HOUR_MS for days in (7, 8, 10, 20, 69, 72, 140)]
    old_calls = [audit_row(created_at_ms=time) for time in long_ago]
    old_costs = [cost_row(created_at_ms=time) for time in long_ago]
    record(writer, *some_rows(500), *old_calls, model_requests=[cost_row(), *old_costs])
    before = (NOW_MS // HOUR_MS - hours) * HOUR_MS
    other = apsw.Connection(str(database))
    with other:
        other.execute("DELETE FROM tool_call_log WHERE created_at < ?", (before,))
        other.execute("DELETE FROM cost_log WHERE created_at < ?", (before,))
        rollups.drop_rollups(other, before)
    assert same(other)
    other.close()


@given(st.lists(st.integers(0, 2**36 - 1), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_within_one_part_in_32_of_the_true_one_after_merging(durations, share):
    half = len(durations) // 2
    merged = sum(
        histogram.from_blob(histogram.to_blob(histogram.count(part))) for part in (durations[:half], durations[half:])
    )
    true = sorted(durations)[max(0, -int(-len(durations) * share // 1) - 1)]
    (found,) = histogram.quantiles(merged, [share])
    assert abs(found - true) <= true / 32


def test_nothing_has_no_quantiles():
    assert histogram.quantiles(histogram.count([]), [0.5]) == []


def test_the_migration_fills_as_the_rebuild_does():
    migration = Path(migrate.MIGRATIONS / "0010_usage.up.sql").read_text(encoding="utf-8")
    size = f"sum(min(result_bytes, {MAX_SUMMED}))"
    now = recount.fill_script("main").lstrip().replace(f"coalesce({size}, 0)", size)  # no size was unknown then
    now = now.replace(f"CASE WHEN {HAS_NO_DURATION} THEN x'01'\n    ELSE ", "").replace(
        " END\nFROM (", "\nFROM ("
    )  # see 0024
    assert migration.endswith(now)
