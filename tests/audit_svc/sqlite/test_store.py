"""What the store keeps, refuses and survives."""

import sqlite3
import time
from pathlib import Path
from uuid import uuid4

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import StoreClosed, StoreRefused, StoreUnavailable
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.usage import Usage
from audit_svc.sqlite.write.inserts import CHUNKS, Inserts
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc import asking
from tests.audit_svc.samples import (
    NOW_MS,
    audit_row,
    batch,
    cost_row,
    question,
    record_request,
    request,
    row_of,
    session_row,
)

Response = audit_pb2.RecordResponse

OPEN_FILES = Path("/proc/self/fd")


def unnamed_files() -> set[str]:
    names = {str(file.readlink()) for file in OPEN_FILES.iterdir() if file.is_symlink()}
    return {name for name in names if name.endswith("(deleted)")}


def record(writer: Writer, *rows: audit_pb2.AuditRow) -> Response:
    return writer.record(batch(*rows)).result()


def stored(reading: apsw.Connection, session_id: str = "") -> list[audit_pb2.AuditRow]:
    listing = question(questions_pb2.ListToolCallsRequest, page_size=1000, session_id=session_id)
    return list(map(row_of, asking.list_tool_calls(reading, listing).tool_calls))


def count(reading: apsw.Connection, table: str) -> object:
    return reading.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]


@pytest.mark.parametrize(
    "row",
    [
        audit_row(tool_name="read", exit_code=None, args_summary='{"path": "README.md"}'),
        audit_row(tool_name="bash", exit_code=0),
        audit_row(tool_name="bash", exit_code=127, result_truncated=True),
        audit_row(tool_name="webfetch", exit_code=None, http_status=404),
        audit_row(tool_name="webfetch", exit_code=None, outcome=common_pb2.OUTCOME_FAILED, error="no such name"),
        *[audit_row(outcome=outcome) for outcome in common_pb2.Outcome.values() if outcome],
    ],
    ids=lambda row: f"{row.tool_name}-{row.outcome}-{row.exit_code}",
)
def test_the_row_of_each_tool_comes_back_as_it_was_sent(writer, reading, row):
    assert record(writer, row) == Response(stored=1)
    assert stored(reading) == [row]


def test_several_inserts_give_distinct_rows(writer, reading):
    rows = [audit_row() for _ in range(sum(CHUNKS) + CHUNKS[0] + 7)]
    assert record(writer, *rows).stored == len(rows)
    assert {row.id for row in stored(reading)} == {row.id for row in rows}


def test_the_inserts_of_rows_alike_are_prepared_once_and_reused(connection, monkeypatch, open_writer):
    # Within one hour, since rows of one that is over are in more rollups than three.
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    new = {"created_at_ms": now_ns // 1_000_000}
    writer = open_writer(connection, 50_000)
    # The first commit of an hour reads what its rollups have, and prepares an INSERT of each size.
    record(writer, *[audit_row(**new) for _ in range(sum(CHUNKS))])
    prepared = connection.cache_stats()
    for _ in range(20):
        record(writer, *[audit_row(**new) for _ in range(sum(CHUNKS))])
    after = connection.cache_stats()
    writer.close()
    # BEGIN, an INSERT of each size, three live rollups, the size, COMMIT, twenty times: all were there, and nothing was
    # compiled.
    assert after["misses"] == prepared["misses"]
    assert after["hits"] == prepared["hits"] + 20 * (len(CHUNKS) + 6)
    assert after["too_big"] == 0


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="needs Linux's list of open files")
def test_an_insert_of_many_rows_copies_none_of_the_pages_that_it_changes(connection):
    inserts, rows = Inserts(connection), batch(*[audit_row(id=str(uuid4())) for _ in range(40 * CHUNKS[0])])
    before = unnamed_files()
    connection.execute("BEGIN")
    inserts.write([(rows, Usage(rows.tool_calls, rows.model_requests))], NOW_MS)
    # The copies that take back one statement of a transaction are in a file without a name until it ends.
    assert unnamed_files() == before
    connection.execute("COMMIT")


@pytest.mark.parametrize("table", ["tool_call_log", "cost_log", "sessions"])
def test_construction_raises_when_a_table_is_missing(connection, table, open_writer):
    connection.execute(f"DROP TABLE {table}")
    with pytest.raises(StoreRefused, match=f"no such table: {table}"):
        open_writer(connection, 50_000)


def test_a_row_without_scope_is_stored_with_unknown_as_session_and_engine(writer, reading):
    record(writer, audit_row(session_id="", engine=""))
    (row,) = stored(reading)
    assert (row.session_id, row.engine) == ("unknown", "unknown")
    assert stored(reading, session_id="unknown") == [row]


def test_record_raises_when_the_database_was_closed_underneath(writer, connection):
    connection.close()
    with pytest.raises(StoreUnavailable, match="the database was closed"):
        record(writer, audit_row())
    with pytest.raises(StoreUnavailable):
        record(writer, audit_row())


def test_record_raises_when_the_writer_was_closed(writer):
    writer.close()
    with pytest.raises(StoreClosed, match="shutting down"):
        writer.record(batch(audit_row()))


def test_a_collision_leaves_the_database_intact_and_the_next_record_succeeds(writer, reading):
    first = audit_row(id="same", tool_name="read")
    record(writer, first)
    response = record(writer, audit_row(id="same", tool_name="bash"))
    assert [(one.id, one.code) for one in response.rejections] == [("same", audit_pb2.REJECTION_CODE_CONFLICT)]
    assert record(writer, audit_row(id="next")).stored == 1
    assert sorted(row.id for row in stored(reading)) == ["next", "same"]
    assert [row for row in stored(reading) if row.id == "same"] == [first]
    assert reading.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_summary_survives_the_round_trip_unchanged(writer, reading):
    summary = '{"command": "curl -H \\"Authorization: [redacted]\\""} \x01\t\n\r ' + "é漢🦜'\"--;%_ \ufffd\u202e"
    record(writer, audit_row(args_summary=summary, error=summary))
    (row,) = stored(reading)
    assert (row.args_summary, row.error) == (summary, summary)


def test_the_same_row_again_is_a_duplicate_and_counts_as_success(writer, reading):
    rows = [audit_row() for _ in range(sum(CHUNKS) + 50)]
    record(writer, *rows[:70])
    assert record(writer, *rows) == Response(stored=len(rows) - 70, duplicates=70)
    assert record(writer, *rows) == Response(duplicates=len(rows))
    assert count(reading, "tool_call_log") == len(rows)


def test_a_conflict_is_rejected_and_its_neighbours_are_stored(writer, reading):
    record(writer, audit_row(id="b", duration_ms=1), audit_row(id="c", duration_ms=1))
    response = record(
        writer,
        audit_row(id="a", duration_ms=1),
        audit_row(id="b", duration_ms=2),
        audit_row(id="c", duration_ms=1),
        audit_row(id="d", duration_ms=1),
    )
    assert (response.stored, response.duplicates) == (2, 1)
    assert [(one.id, one.code) for one in response.rejections] == [("b", audit_pb2.REJECTION_CODE_CONFLICT)]
    assert {row.id: row.duration_ms for row in stored(reading)} == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_one_id_twice_in_a_batch_is_a_duplicate_or_a_conflict(writer):
    response = record(writer, audit_row(id="a", turn_id="t"), audit_row(id="a", turn_id="t"), audit_row(id="a"))
    assert (response.stored, response.duplicates, len(response.rejections)) == (1, 1, 1)


def test_rejections_of_all_kinds_come_in_the_order_of_the_request(writer):
    record(writer, audit_row(id="known", duration_ms=1))
    mixed = record_request(
        last=9,
        tool_calls=[
            audit_row(id="x" * 129),
            audit_row(id="known", duration_ms=2),
            audit_row(id="nameless", tool_name=""),
        ],
        model_requests=[cost_row(), cost_row(id="cost", input_tokens=-1)],
        sessions=[session_row(id="session", revision=-1)],
    )
    response = writer.record(read_batch(mixed, NOW_MS)).result()
    assert (response.range.last, response.stored) == (9, 1)
    calls, requests, sessions = (
        audit_pb2.ROW_KIND_TOOL_CALL,
        audit_pb2.ROW_KIND_MODEL_REQUEST,
        audit_pb2.ROW_KIND_SESSION,
    )
    assert [(one.kind, one.index, one.id, one.code) for one in response.rejections] == [
        (calls, 0, "x" * 128, audit_pb2.REJECTION_CODE_TOO_LARGE),
        (calls, 1, "known", audit_pb2.REJECTION_CODE_CONFLICT),
        (calls, 2, "nameless", audit_pb2.REJECTION_CODE_INVALID),
        (requests, 1, "cost", audit_pb2.REJECTION_CODE_INVALID),
        (sessions, 0, "session", audit_pb2.REJECTION_CODE_INVALID),
    ]


def test_costs_are_stored_with_null_where_the_price_is_not_known(writer, reading):
    costs = [cost_row(), cost_row(cost_micros=0), cost_row(cost_micros=None), cost_row(error="cut")]
    batch_of_costs = read_batch(record_request(model_requests=costs), NOW_MS)
    assert writer.record(batch_of_costs).result() == Response(stored=4)
    assert writer.record(batch_of_costs).result() == Response(duplicates=4)
    found = reading.execute("SELECT cost_micros, error FROM cost_log ORDER BY rowid").fetchall()
    assert found == [(42, None), (0, None), (None, None), (42, "cut")]


def test_of_two_session_rows_the_higher_revision_stays_with_its_labels(writer, reading):
    def send(*sessions: audit_pb2.SessionRow) -> tuple[int, int]:
        response = writer.record(read_batch(record_request(sessions=sessions), NOW_MS)).result()
        return response.stored, response.duplicates

    newest = session_row(revision=3, turns=2, status=common_pb2.SESSION_STATUS_IDLE, labels={"user": "grace"})
    assert send(session_row(revision=1)) == (1, 0)
    assert send(newest) == (1, 0)
    assert send(session_row(revision=2), newest) == (0, 2)
    asked = questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="session-1"))
    assert row_of(asking.get_session(reading, asked).session) == newest


def test_an_empty_batch_is_answered(writer):
    sent = request(last=5)
    assert writer.record(read_batch(sent, NOW_MS)).result() == Response(range=sent.range)


def test_a_committed_row_is_in_the_file_for_any_other_sqlite(writer, database: Path):
    record(writer, audit_row(id="seen"))
    other = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    assert other.execute("SELECT id, outcome FROM tool_call_log").fetchall() == [("seen", "succeeded")]
    other.close()


def test_a_call_that_an_older_ledger_stored_without_an_outcome_is_read(writer, reading, connection):
    record(writer, audit_row(id="old"), audit_row(id="new"))
    writer.run(lambda own: own.execute("UPDATE tool_call_log SET outcome = NULL WHERE id = 'old'")).result()
    listing = question(questions_pb2.ListToolCallsRequest, outcomes=[common_pb2.OUTCOME_UNSPECIFIED])
    (found,) = map(row_of, asking.list_tool_calls(reading, listing).tool_calls)
    assert found == audit_row(id="old", outcome=common_pb2.OUTCOME_UNSPECIFIED)
