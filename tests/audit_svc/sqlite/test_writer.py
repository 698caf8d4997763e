"""The writer: group commit, the bounded queue, and what it does when the disk or a batch does not do as it should."""

import dataclasses
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.errors import DiskFull, QueueFull, StoreUnavailable
from audit_svc.ledger.group_commit import COMMIT_ROWS, PART_ROWS
from audit_svc.ledger.observer import StoreObserver
from audit_svc.ledger.query import query_of
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.store import SqliteLedger
from audit_svc.sqlite.text.indexer import Indexer
from recording import upkeep
from tests.audit_svc import asking
from tests.audit_svc.samples import audit_row, batch, row_of

Responses = list[Future[audit_pb2.RecordResponse]]


@contextmanager
def held(database: Path) -> Iterator[None]:
    """Keeps the writer from committing, as a slow disk would: another connection holds the write lock."""
    other = apsw.Connection(str(database))
    other.set_busy_timeout(10_000)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.fixture
def commits(connection: apsw.Connection) -> list[int]:
    """Grows by one entry with each commit."""
    entries: list[int] = []

    def committed() -> bool:
        entries.append(1)
        return False

    connection.set_commit_hook(committed)
    return entries


def count(reading: apsw.Connection) -> object:
    return reading.execute("SELECT count(*) FROM tool_call_log").fetchall()[0][0]


def test_what_queues_while_a_commit_is_under_way_is_committed_together(commits, writer, database):
    with held(database):
        responses = [writer.record(batch(audit_row())) for _ in range(100)]
    assert all(response.result().stored == 1 for response in responses)
    # Some may have been taken before the others came; those then went together.
    assert len(commits) <= 2


def test_commits_of_a_line_grow_up_to_their_limit(connection, database, open_writer):
    observer = mock.Mock(spec=StoreObserver)
    writer = open_writer(connection, observer=observer)
    with held(database):
        responses = [writer.record(batch(*[audit_row() for _ in range(PART_ROWS)])) for _ in range(26)]
    assert all(response.result().stored == PART_ROWS for response in responses)
    commits = [sum(response.stored for response in call.args[0]) for call in observer.committed.call_args_list]
    assert max(commits) == COMMIT_ROWS
    assert commits[:3] == [PART_ROWS, 2 * PART_ROWS, 4 * PART_ROWS]


def test_a_single_batch_waits_for_the_commit_under_way_and_for_no_row_of_a_stream_besides(
    connection, database, open_writer
):
    observer = mock.Mock(spec=StoreObserver)
    writer, many = open_writer(connection, observer=observer), batch(*[audit_row() for _ in range(COMMIT_ROWS // 4)])
    with held(database):
        streams = [dataclasses.replace(many, of_stream=True) for _ in range(9)]
        responses = [writer.record(one) for one in [*streams, batch(audit_row())]]
    assert all(response.result().range.last == 0 for response in responses)
    commits = [[response.stored for response in call.args[0]] for call in observer.committed.call_args_list]
    assert [1] in commits[:2]


def test_a_large_batch_is_committed_in_parts_and_answered_once_and_a_single_one_goes_between(
    connection, database, open_writer
):
    observer = mock.Mock(spec=StoreObserver)
    writer = open_writer(connection, observer=observer)
    rows = [audit_row() for _ in range(4 * PART_ROWS)]
    rows[1].id = rows[-2].id = ""
    rows[-1].CopyFrom(rows[0])
    with held(database):
        whole = writer.record(dataclasses.replace(batch(*rows, last=len(rows)), of_stream=True))
        one = writer.record(batch(audit_row()))
        others = writer.record(dataclasses.replace(batch(*rows), of_stream=True))
    assert one.result().stored == 1
    response = whole.result()
    assert (response.range.last, response.stored, response.duplicates) == (len(rows), len(rows) - 3, 1)
    assert [refused.index for refused in response.rejections] == [1, len(rows) - 2]
    assert not others.result().HasField("range")
    assert others.result().duplicates == len(rows) - 2
    commits = [[len(call.args[0]), sum(r.stored for r in call.args[0])] for call in observer.committed.call_args_list]
    between = commits.index([1, 1])
    assert between < 2
    assert commits[between + 1][0] == 1


def test_a_batch_of_which_a_part_fails_is_answered_with_the_failure_and_its_numbers_have_not_come(
    connection, database, open_writer, reading
):
    writer = open_writer(connection)
    whole = batch(*[audit_row() for _ in range(PART_ROWS + 2)], last=PART_ROWS + 2)
    bad = dataclasses.replace(whole.tool_calls, values=[*whole.tool_calls.values])
    bad.values[-bad.width + 16] = "no number"
    with pytest.raises(apsw.ConstraintError):
        writer.record(dataclasses.replace(whole, tool_calls=bad)).result()
    assert count(reading) == PART_ROWS
    assert reading.execute("SELECT * FROM producers").fetchall() == []
    again = writer.record(whole).result()
    assert (again.stored, again.duplicates, again.range.last) == (2, PART_ROWS, PART_ROWS + 2)


@pytest.mark.long
def test_singles_and_streams_that_never_end_take_turns(connection, database, open_writer):
    ended: list[bool] = []
    writer, rows = open_writer(connection), COMMIT_ROWS // 2 + 1
    with held(database):
        many = batch(*[audit_row() for _ in range(rows)])
        both = [dataclasses.replace(many, of_stream=of_stream) for of_stream in (True, False) for _ in range(4)]
        responses = [writer.record(one) for one in both]
        for response, one in zip(responses, both, strict=True):
            response.add_done_callback(lambda _, of_stream=one.of_stream: ended.append(of_stream))
    assert all(response.result().range.last == 0 for response in responses)
    assert ended in ([True, False] * 4, [False, True] * 4)


def test_each_batch_of_a_group_has_its_own_counts(writer, database):
    twice = audit_row(id="twice")
    with held(database):
        responses = [
            writer.record(batch(audit_row(), audit_row(), last=1)),
            writer.record(batch(twice, audit_row(id=""), last=2)),
            writer.record(batch(twice, audit_row(), last=3)),
            writer.record(batch(audit_row(id="twice", tool_name="other"), last=4)),
        ]
    counts = [
        (one.range.last, one.stored, one.duplicates, len(one.rejections)) for one in map(Future.result, responses)
    ]
    assert counts == [(1, 2, 0, 0), (2, 1, 0, 1), (3, 1, 1, 0), (4, 0, 0, 1)]


def test_a_batch_is_not_acknowledged_before_it_is_committed(writer, database, reading):
    with held(database):
        response = writer.record(batch(audit_row()))
        with pytest.raises(TimeoutError):
            response.result(0.2)
        assert count(reading) == 0
    assert response.result().stored == 1
    assert count(reading) == 1


def test_more_rows_than_the_queue_holds_are_refused_and_those_in_it_are_stored(connection, database, open_writer):
    writer = open_writer(connection, 10)
    try:
        with held(database):
            accepted = [writer.record(batch(audit_row()))]
            while writer.queued_rows:
                pass
            accepted += [writer.record(batch(audit_row(), audit_row())) for _ in range(5)]
            with pytest.raises(QueueFull, match="10 rows wait"):
                writer.record(batch(audit_row()))
        assert [response.result().stored for response in accepted] == [1, 2, 2, 2, 2, 2]
        assert writer.record(batch(audit_row())).result().stored == 1
    finally:
        writer.close()


def test_a_batch_larger_than_the_queue_is_taken_when_nothing_waits(connection, open_writer):
    writer = open_writer(connection, 10)
    assert writer.record(batch(*[audit_row() for _ in range(50)])).result().stored == 50
    writer.close()


def test_a_batch_that_cannot_be_written_does_not_take_others_with_it(writer, database, reading):
    bad = batch(audit_row())
    bad = dataclasses.replace(bad, tool_calls=dataclasses.replace(bad.tool_calls, values=[*bad.tool_calls.values]))
    bad.tool_calls.values[16] = "no number"
    with held(database):
        good = [writer.record(batch(audit_row())) for _ in range(3)]
        wrong = writer.record(bad)
        good += [writer.record(batch(audit_row())) for _ in range(3)]
    with pytest.raises(apsw.ConstraintError):
        wrong.result()
    assert [response.result().stored for response in good] == [1] * 6
    assert count(reading) == 6


def test_a_database_that_another_program_locks_is_unavailable_until_it_lets_go(writer, connection, database, reading):
    connection.set_busy_timeout(10)
    with held(database):
        responses = [writer.record(batch(audit_row())) for _ in range(5)]
        errors = [response.exception() for response in responses]
    assert [type(error) for error in errors] == [StoreUnavailable] * 5
    assert writer.record(batch(audit_row())).result().stored == 1
    assert count(reading) == 1


def test_what_has_queued_is_committed_before_the_writer_closes(connection, database, open_writer):
    writer = open_writer(connection, 50_000)
    responses = [writer.record(batch(*[audit_row() for _ in range(500)])) for _ in range(30)]
    writer.close()
    assert sum(response.result(0).stored for response in responses) == 15_000
    assert count(open_for_reading(database)) == 15_000


def test_a_future_cannot_be_cancelled(writer, database, reading):
    with held(database):
        responses = [writer.record(batch(audit_row())) for _ in range(3)]
        assert not any(response.cancel() for response in responses)
    assert [response.result().stored for response in responses] == [1, 1, 1]
    assert count(reading) == 3


def test_a_full_disk_refuses_writers_lets_readers_go_on_and_is_over_when_there_is_room(writer, connection, reading):
    assert writer.record(batch(audit_row(id="before"))).result().stored == 1
    before = connection.pragma("max_page_count")
    connection.pragma("max_page_count", connection.pragma("page_count"))
    large = [audit_row(args_summary="x" * 4000) for _ in range(100)]
    for _ in range(3):
        with pytest.raises(DiskFull):
            writer.record(batch(*large)).result()
        assert [
            row_of(one).id for one in asking.list_tool_calls(reading, questions_pb2.ListToolCallsRequest()).tool_calls
        ] == ["before"]
    connection.pragma("max_page_count", before)
    assert writer.record(batch(*large)).result().stored == 100
    assert reading.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def fill(store: SqliteLedger) -> int:
    """Records until the disk is full, and returns how many rows were acknowledged."""
    acknowledged = 0
    while True:
        rows = [audit_row(args_summary="x" * 2000) for _ in range(50)]
        try:
            acknowledged += (await store.record(batch(*rows))).stored
        except DiskFull:
            return acknowledged


async def test_a_file_system_that_fills_up_loses_nothing_acknowledged_and_recovers(small_disk, open_ledger):
    database = small_disk / "audit.db"
    store = open_ledger(database, queue_rows=50_000)
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(3 * 2**20))
    acknowledged = await fill(store)
    rows = [audit_row(args_summary="x" * 2000) for _ in range(50)]
    with pytest.raises(DiskFull):
        await store.record(batch(*rows))
    listing = questions_pb2.ListToolCallsRequest(page_size=1000)
    assert acknowledged > 0
    assert len((await store.list_tool_calls(query_of(listing))).rows) == acknowledged
    ballast.unlink()
    assert (await store.record(batch(*rows))).stored == 50
    await store.close()
    with_all = open_for_writing(database)
    migrate.pending(with_all, migrate.load_migrations())
    assert with_all.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert count(with_all) == acknowledged + 50
    with_all.close()


class _Broken:
    """An indexer with a defect, for the writer's thread to die of."""

    unindexed_rows = 0

    def committed(self, seconds: float) -> None:
        raise AssertionError("a defect")

    def pause(self) -> float | None:
        return None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_writer_that_has_died(connection, database, open_writer):
    writer = open_writer(connection, indexer=_Broken())
    with held(database):
        answered = writer.record(batch(audit_row()))
        while writer.queued_rows:
            pass
        left = writer.record(batch(audit_row()))
        job = writer.run(lambda connection: 1)
    assert answered.result().stored == 1
    for waiting in (left, job):
        with pytest.raises(StoreUnavailable, match="has died"):
            waiting.result(10)
    with pytest.raises(StoreUnavailable):
        writer.record(batch(audit_row()))


@pytest.mark.usefixtures("no_upkeep_failed")
@pytest.mark.parametrize(
    ("place", "task"), [("sum_sessions", "summing"), ("index_rows", "indexing"), ("unindexed_rows", "counting")]
)
def test_a_defect_of_the_indexer_does_not_end_the_writer(connection, open_writer, monkeypatch, place, task):
    """It is no error of SQLite's. The next step is tried as if nothing had been, and no other's success hides it."""
    tried = threading.Event()

    def defect(connection: apsw.Connection) -> Iterator[None]:
        if upkeep.failures[task]:
            tried.set()
        raise OverflowError("a defect")

    monkeypatch.setattr(f"audit_svc.sqlite.text.indexer.{place}", defect)
    monkeypatch.setattr("audit_svc.ledger.idle.FAILED_SECONDS", 0)
    writer = open_writer(connection, indexer=Indexer(connection))
    assert writer.record(batch(audit_row())).result(30).stored == 1
    assert tried.wait(30)
    assert writer.record(batch(audit_row())).result(30).stored == 1
    assert writer._thread.is_alive()
    assert upkeep.why_failing() == f"{task} fails: OverflowError"


def test_a_batch_is_answered_before_anything_is_logged(writer, monkeypatch):
    """So that a log that stands still, or fails, keeps no answer back."""
    order: list[str] = []
    monkeypatch.setattr("audit_svc.ledger.group_commit.log.warning", lambda *_, **__: order.append("logged"))
    response = writer.record(batch(audit_row(id="")))
    response.add_done_callback(lambda _: order.append("answered"))
    response.result()
    writer.run(lambda connection: 1).result()
    assert order == ["answered", "logged"]
    failing = writer.run(lambda connection: connection.execute("SELECT * FROM nowhere"))
    failing.add_done_callback(lambda _: order.append("answered"))
    with pytest.raises(StoreUnavailable):
        failing.result()
    writer.run(lambda connection: 1).result()
    assert order[2:] == ["answered", "logged"]
