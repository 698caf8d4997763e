"""Pruning: what goes, what stays, what is refused afterwards, and that no end in the middle leaves anything wrong."""

import contextlib
import dataclasses
from pathlib import Path

import apsw
import grpc
import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.errors import DatabaseInUse, InvalidRequest
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.clock import SeenClock
from audit_svc.ledger.pruning import PrunedCounts, whole_hour
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.sql.care import prune
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.care.prune import Prune, count, prune_file
from audit_svc.sqlite.care.vacuum import space, vacuum
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing, transaction
from audit_svc.sqlite.open.lock import FileLock
from audit_svc.sqlite.usage.recount import rebuild_rollups
from tests.audit_svc.aged import THIS_HOUR, ago, fill, hour_of_rows, make_ledger
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row

TOO_OLD = audit_pb2.REJECTION_CODE_TOO_OLD


def ids(database: Path, table: str) -> set[str]:
    connection = open_for_reading(database)
    found = {str(row[0]) for row in connection.execute(f"SELECT id FROM {table}")}
    connection.close()
    return found


def wrong(database: Path) -> list[str]:
    return [f"{found.check}: {found.detail}" for found in check(database, lambda *_: None) if found.state == "wrong"]


def summaries(database: Path) -> list[tuple[object, ...]]:
    connection = open_for_reading(database)
    rows = list(
        connection.execute(
            "SELECT pruned_before, earliest, tool_calls, errors, model_requests, input_tokens, output_tokens, "
            "cost_micros, sessions, pruned_by, finished_at IS NOT NULL FROM pruned"
        )
    )
    connection.close()
    return rows


def test_what_began_before_goes_with_its_sessions_and_labels_and_a_summary_stays(database):
    make_ledger(database, hours=6)
    *_, last = prune_file(database, ago(3), "ada")
    assert last.removed == PrunedCounts(30, 3, 6, 600, 120, 252, 3)
    assert ids(database, "sessions") == {"session-1", "session-2", "session-3"}
    assert ids(database, "tool_call_log") == {f"call-{hour}-{index}" for hour in (1, 2, 3) for index in range(10)}
    assert len(ids(database, "cost_log")) == 6
    assert summaries(database) == [(ago(3), ago(6), 30, 3, 6, 600, 120, 252, 3, "ada", 1)]
    assert wrong(database) == []


def test_a_session_stays_that_went_on_later_or_still_has_rows(database, open_writer):
    make_ledger(database, hours=1)
    writer = open_writer(open_for_writing(database), 50_000)
    old = {"created_at_ms": ago(9), "updated_at_ms": ago(9)}
    request = record_request(
        tool_calls=[audit_row(session_id="has-calls", created_at_ms=ago(1))],
        model_requests=[cost_row(session_id="has-requests", created_at_ms=ago(1))],
        sessions=[
            session_row(id="went-on", created_at_ms=ago(9), updated_at_ms=ago(1)),
            session_row(id="has-calls", **old),
            session_row(id="has-requests", **old),
            session_row(id="over", **old),
        ],
    )
    writer.record(read_batch(request, NOW_MS)).result()
    writer.close()
    *_, last = prune_file(database, ago(5), "ada")
    assert last.removed.sessions == 1
    assert ids(database, "sessions") == {"session-1", "went-on", "has-calls", "has-requests"}


def test_what_was_pruned_is_refused_when_it_is_sent_again_and_its_neighbours_are_stored(database, open_writer):
    make_ledger(database, hours=6)
    list(prune_file(database, ago(3), "ada"))
    writer = open_writer(open_for_writing(database), 50_000)
    again = hour_of_rows(5)
    again.tool_calls.extend(hour_of_rows(2).tool_calls)
    again.tool_calls.append(audit_row(id="new"))
    for stored in (1, 0):
        response = writer.record(read_batch(again, NOW_MS)).result()
        assert (response.stored, response.duplicates) == (stored, 11 - stored)
        assert [rejection.id for rejection in response.rejections] == [
            *(f"call-5-{index}" for index in range(10)),
            *(f"cost-5-{index}" for index in range(2)),
            "session-5",
        ]
        assert {rejection.code for rejection in response.rejections} == {TOO_OLD}
        assert "before what the ledger has been pruned to" in response.rejections[0].message
    writer.close()
    assert wrong(database) == []


def test_a_session_that_is_still_there_goes_on_however_old_its_row_is(database, open_writer):
    make_ledger(database, hours=1)
    writer = open_writer(open_for_writing(database), 50_000)
    old = session_row(id="slow", created_at_ms=ago(9), updated_at_ms=ago(9))
    call = audit_row(session_id="slow", created_at_ms=ago(1))
    writer.record(read_batch(record_request(tool_calls=[call], sessions=[old]), NOW_MS)).result()
    writer.close()
    list(prune_file(database, ago(5), "ada"))
    writer = open_writer(open_for_writing(database), 50_000)
    newer = session_row(id="slow", revision=2, created_at_ms=ago(9), updated_at_ms=ago(8))
    assert writer.record(read_batch(record_request(sessions=[newer]), NOW_MS)).result().stored == 1
    writer.close()


def test_the_writer_refuses_from_the_moment_that_the_mark_is_committed(database, open_writer):
    make_ledger(database, hours=6)
    writer = open_writer(open_for_writing(database), 50_000)
    writer.run(Prune(ago(3), "ada", writer.clock).step).result()
    response = writer.record(read_batch(hour_of_rows(5), NOW_MS)).result()
    # The session's row has not been removed yet, so that it counts as a duplicate.
    assert ({rejection.code for rejection in response.rejections}, response.duplicates) == ({TOO_OLD}, 1)
    writer.close()


@pytest.mark.long
def test_an_end_after_any_step_leaves_nothing_wrong_and_the_next_prune_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "BATCH_ROWS", 7)
    steps = 1
    while True:
        database = tmp_path / f"after-{steps}.db"
        make_ledger(database, hours=6)
        first = Prune(ago(3), "ada", SeenClock(None))
        connection = open_for_writing(database)
        done = False
        for _ in range(steps):
            with transaction(connection):
                done = first.step(connection).done
            if done:
                break
        connection.close()
        assert wrong(database) == []
        list(prune_file(database, ago(4), "bob"))
        # It goes to the later of the two times, in the row of who began.
        assert summaries(database) == [(ago(3), ago(6), 30, 3, 6, 600, 120, 252, 3, "ada", 1)]
        assert wrong(database) == []
        if done:
            break
        steps += 1
    assert steps > 8


def test_a_transaction_removes_no_more_than_a_batch(database, monkeypatch):
    monkeypatch.setattr(prune, "BATCH_ROWS", 7)
    make_ledger(database, hours=6)
    before = 0
    for progress in prune_file(database, THIS_HOUR, "ada"):
        removed = progress.removed
        assert removed.tool_calls + removed.model_requests + removed.sessions - before <= 7
        before = removed.tool_calls + removed.model_requests + removed.sessions
    # The last call that came and the last request stay, and their session.
    assert before == 59 + 11 + 5


def test_queries_of_before_are_forgotten(database, monkeypatch):
    monkeypatch.setattr(prune, "BATCH_ROWS", 3)
    make_ledger(database, hours=1)
    connection = open_for_writing(database)
    connection.executemany(
        "INSERT INTO query_log (caller, method, filters, rows, duration_ms, status, created_at) "
        "VALUES ('ada', 'ListToolCalls', '', 0, 0, 'OK', ?)",
        [(ago(hours),) for hours in reversed(range(10))],
    )
    connection.close()
    list(prune_file(database, ago(2), "ada"))
    connection = open_for_reading(database)
    assert connection.execute("SELECT min(created_at), count(*) FROM query_log").fetchall() == [(ago(2), 3)]
    connection.close()


def test_no_row_gets_the_number_of_one_that_was_pruned(database, open_writer):
    """Who follows the rows by their numbers would miss it: the call that came last stays until another has come."""
    make_ledger(database, hours=6)
    list(prune_file(database, THIS_HOUR, "ada"))
    assert ids(database, "tool_call_log") == {"call-1-9"}
    assert wrong(database) == []
    connection = open_for_writing(database)
    rebuild_rollups(connection)
    assert wrong(database) == []
    writer = open_writer(connection, 50_000)
    writer.record(read_batch(record_request(tool_calls=[audit_row(id="next")]), NOW_MS)).result()
    writer.close()
    connection = open_for_reading(database)
    rows = list(connection.execute("SELECT id, rowid FROM tool_call_log ORDER BY rowid"))
    connection.close()
    assert rows == [("call-1-9", 60), ("next", 61)]
    *_, last = prune_file(database, THIS_HOUR, "ada")
    assert last.removed.tool_calls == 1
    assert ids(database, "tool_call_log") == {"next"}
    assert [summary[2] for summary in summaries(database)] == [60]
    assert wrong(database) == []


@pytest.mark.parametrize("before_ms", [ago(3), THIS_HOUR], ids=["some", "all"])
def test_what_would_be_removed_is_what_is_removed(database, before_ms):
    make_ledger(database, hours=6)
    connection = open_for_reading(database)
    counted = count(connection, before_ms)
    connection.close()
    *_, last = prune_file(database, before_ms, "ada")
    assert dataclasses.asdict(counted) == dataclasses.asdict(last)


@pytest.mark.long
def test_a_new_file_gives_its_space_back(database):
    make_ledger(database, hours=20, calls=500)
    before = database.stat().st_size
    list(prune_file(database, ago(2), "ada"))
    assert database.stat().st_size < before / 2
    assert space(database).free_bytes == 0


@pytest.mark.long
def test_a_file_from_before_gives_its_space_back_after_one_vacuum(database):
    old = apsw.Connection(str(database))
    old.execute("CREATE TABLE made_without_auto_vacuum (x)")
    old.execute("DROP TABLE made_without_auto_vacuum")
    old.close()
    connection = open_for_writing(database)
    migrate.up(connection, migrate.load_migrations())
    fill(connection, hours=20, calls=500)
    before = database.stat().st_size
    list(prune_file(database, ago(10), "ada"))
    assert database.stat().st_size >= before
    assert space(database).gives_back is False
    after = vacuum(database, lambda done, pages: None)
    assert (after.free_bytes, after.gives_back) == (0, True)
    assert database.stat().st_size < before * 0.7
    list(prune_file(database, ago(2), "ada"))
    assert database.stat().st_size < before * 0.4
    assert wrong(database) == []


def test_a_ledger_in_service_is_neither_pruned_nor_vacuumed_as_a_file(database):
    make_ledger(database, hours=2)
    lock = FileLock(database)
    with pytest.raises(DatabaseInUse):
        list(prune_file(database, ago(1), "ada"))
    with pytest.raises(DatabaseInUse):
        vacuum(database, lambda done, pages: None)
    lock.release()
    assert len(ids(database, "tool_call_log")) == 20


@pytest.mark.parametrize(
    ("before_ms", "said"),
    [(0, "is not set"), (-5, "is not set"), (NOW_MS + 10, "in the future")],
    ids=["unset", "negative", "future"],
)
def test_a_time_that_cannot_be_pruned_to_is_refused(before_ms, said):
    with pytest.raises(InvalidRequest, match=said):
        whole_hour(before_ms, NOW_MS)


def test_a_prune_is_cut_at_whole_hours():
    assert whole_hour(THIS_HOUR, NOW_MS) == THIS_HOUR
    assert whole_hour(THIS_HOUR - 1, NOW_MS) == THIS_HOUR - HOUR_MS
    assert whole_hour(NOW_MS, NOW_MS) == THIS_HOUR


async def test_the_rpc_counts_removes_and_tells_how_far_it_is(ledger, monkeypatch):
    monkeypatch.setattr(prune, "BATCH_ROWS", 10)
    for hour in (6, 5, 4, 3, 2, 1):
        await ledger.RecordBatch(hour_of_rows(hour))
    request = administration_pb2.PruneRequest(created_before_ms=ago(3) + 5, dry_run=True)
    counted = [response async for response in ledger.Prune(request)]
    assert [(one.pruned_before_ms, one.tool_calls, one.done) for one in counted] == [(ago(3), 30, True)]
    request.dry_run = False
    told = [response async for response in ledger.Prune(request)]
    assert [response.done for response in told] == [False] * (len(told) - 1) + [True]
    assert [response.tool_calls for response in told][:4] == [0, 10, 20, 30]
    assert told[-1] == counted[0]
    response = await ledger.RecordBatch(hour_of_rows(4))
    assert {rejection.code for rejection in response.rejections} == {TOO_OLD}


@pytest.mark.parametrize(
    "before_ms", [0, -1, NOW_MS + 10**9, 2**62], ids=lambda before_ms: "past" if before_ms <= 0 else "future"
)
async def test_the_rpc_refuses_a_time_that_makes_no_sense(ledger, before_ms):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        [response async for response in ledger.Prune(administration_pb2.PruneRequest(created_before_ms=before_ms))]
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.long
async def test_a_second_prune_meanwhile_is_refused_and_one_after_it_goes_on(ledger, monkeypatch):
    monkeypatch.setattr(prune, "BATCH_ROWS", 1)
    for hour in (6, 5, 4, 3, 2, 1):
        await ledger.RecordBatch(hour_of_rows(hour, calls=100))
    request = administration_pb2.PruneRequest(created_before_ms=ago(3))
    first = ledger.Prune(request)
    assert not (await first.read()).done
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        [response async for response in ledger.Prune(request)]
    assert refused.value.code() == grpc.StatusCode.ABORTED
    first.cancel()
    told: list[administration_pb2.PruneResponse] = []
    while not told:
        # The first ends after the batch that is under way, not before its client has left.
        with contextlib.suppress(grpc.aio.AioRpcError):
            told = [response async for response in ledger.Prune(request)]
    assert told[-1].done
    rows = (await ledger.ListToolCalls(questions_pb2.ListToolCallsRequest(page_size=1000))).tool_calls
    assert len(rows) == 300
