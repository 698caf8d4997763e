"""The index of texts: made, merged, pruned, checked and made again, and nothing is wrong when a step is the last."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner

from audit_svc.__main__ import app
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.sqlite.text import indexer, text_segments
from audit_svc.sqlite.text.indexer import Indexer
from audit_svc.sqlite.text.text_index import index_zones, rebuild_text_index, text_index_differences, unindexed_rows
from audit_svc.sqlite.text.text_segments import is_tidy, remove_segment
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.samples import audit_row, batch
from tests.audit_svc.texts.ledger import BEGIN, call, left_over, listed, plain, prune_all, write

ENTRIES = "SELECT trigram, zone, rows FROM args_index JOIN args_index_segments USING (segment) ORDER BY trigram, zone"
EIGHT = "segment = (SELECT segment FROM args_index_segments WHERE zone = 8)"
OTHERS = f"SELECT rows FROM args_index WHERE trigram = 'e-3' AND {EIGHT}"
SEGMENTS = "SELECT zones, count(*) FROM args_index_segments GROUP BY 1"


def test_all_that_is_full_is_indexed_and_the_last_row_never_is(filled):
    assert unindexed_rows(filled) == 1000 + 1 - 31 * 32
    assert filled.execute("SELECT count(*), max(zone) FROM args_index_zones").fetchall() == [(31, 30)]
    assert filled.execute(SEGMENTS).fetchall() == [(1, 1), (2, 1), (4, 7)]
    write(filled, *[call(number) for number in range(1000, 1023)])
    list(index_zones(filled))
    assert unindexed_rows(filled) == 32
    write(filled, call(1023))
    list(index_zones(filled))
    assert unindexed_rows(filled) == 1


def test_what_was_begun_and_not_ended_is_begun_again(filled):
    write(filled, *[call(number) for number in range(1000, 1100)])
    entries = filled.execute("SELECT count(*) FROM args_index").fetchall()
    steps = index_zones(filled)
    while filled.execute("SELECT count(*) FROM args_index").fetchall() == entries:
        next(steps)
    del steps
    list(index_zones(filled))
    assert list(text_index_differences(filled)) == [False] * 34
    found = filled.execute(ENTRIES).fetchall()
    list(rebuild_text_index(filled))
    assert filled.execute(ENTRIES).fetchall() == found


@pytest.fixture
def unindexed() -> apsw.Connection:
    """Calls of a zone more than make a segment of the largest, in memory."""
    connection = apsw.Connection(":memory:")
    migrate.up(connection, migrate.load_migrations())
    write(connection, *[call(number) for number in range(5 * 32 + 1)])
    return connection


def copy_of(connection: apsw.Connection) -> apsw.Connection:
    """What a process that ends now leaves."""
    copy = apsw.Connection(":memory:")
    copy.deserialize("main", connection.serialize("main"))
    return copy


def test_pages_are_right_after_each_step_and_a_process_that_ends_there_leaves_nothing_that_stays(unindexed):
    found = plain(unindexed, "file-3")
    complete = copy_of(unindexed)
    list(index_zones(complete))
    assert complete.execute(SEGMENTS).fetchall() == [(1, 1), (4, 1)]
    assert left_over(complete) == 0
    assert is_tidy(complete)
    entries = complete.execute(ENTRIES).fetchall()
    merging = 0
    for _ in index_zones(unindexed):
        copy = copy_of(unindexed)
        assert listed(copy, 100, args_contain="file-3") == found
        was_left_over = left_over(copy)
        assert not (was_left_over and is_tidy(copy))
        merging += was_left_over > 0 and copy.execute("SELECT count(*) FROM args_index_zones").fetchall() == [(4,)]
        list(index_zones(copy))
        assert left_over(copy) == 0
        assert copy.execute(ENTRIES).fetchall() == entries
        copy.close()
    assert merging > 20


def test_a_prune_between_two_steps_leaves_nothing_that_stays(unindexed):
    steps = sum(1 for _ in index_zones(copy_of(unindexed)))
    for step in range(0, steps, 7):
        copy = copy_of(unindexed)
        indexing = index_zones(copy)
        list(itertools.islice(indexing, step))
        prune_all(copy, BEGIN + 2 * HOUR_MS)
        list(indexing)
        list(index_zones(copy))
        prune_all(copy, BEGIN + 2 * HOUR_MS)
        assert copy.execute("SELECT count(*) FROM args_index").fetchall() == [(0,)]
        assert copy.execute("SELECT count(*) FROM args_index_segments").fetchall() == [(0,)]
        copy.close()


def test_what_is_pruned_leaves_the_index(filled):
    prune_all(filled, BEGIN + 2 * HOUR_MS)
    # 720 rows: of the zone that the time cuts, nothing has gone, and of the entries of its segment neither.
    assert filled.execute("SELECT min(zone), count(*) FROM args_index_zones").fetchall() == [(22, 9)]
    assert filled.execute("SELECT min(zone) FROM args_index_segments").fetchall() == [(20,)]
    assert left_over(filled) == 0
    assert listed(filled, 10, args_contain="needle") == ["0907"]
    assert not any(text_index_differences(filled))


@pytest.mark.parametrize("bound", ["ENTRIES_A_REMOVAL", "BYTES_A_REMOVAL"])
def test_what_goes_goes_a_few_entries_at_once(filled, monkeypatch, bound):
    filled.execute("DELETE FROM args_index_zones")
    for name in ("ENTRIES_A_REMOVAL", "BYTES_A_REMOVAL"):
        monkeypatch.setattr(text_segments, name, 3 if name == bound else 10**9)
    before = left = entries_of(filled)
    while remove_segment(filled):
        before, left = left, entries_of(filled)
        assert before - left <= 3
    assert left == 0
    assert filled.execute("SELECT count(*) FROM args_index_segments").fetchall() == [(0,)]


def entries_of(connection: apsw.Connection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM args_index")
    return int(count)


@pytest.fixture
def ledger_file(filled: apsw.Connection, database: Path) -> Path:
    filled.close()
    return database


def said(database: Path) -> list[tuple[str, str]]:
    return [(found.check, found.detail) for found in check(database, lambda *_: None) if found.state != "ok"]


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (f"DELETE FROM args_index WHERE trigram = 'nee' AND {EIGHT}", 1),
        (f"UPDATE args_index SET rows = ({OTHERS}) WHERE trigram = 'pat' AND {EIGHT}", 4),
        (f"UPDATE args_index SET rows = zeroblob(4) WHERE trigram = 'pat' AND {EIGHT}", 4),
        ("UPDATE args_index_zones SET latest = latest - 1 WHERE zone = 9", 1),
        ("UPDATE args_index_segments SET latest = latest - 1 WHERE zone = 8", 1),
        ("UPDATE args_index_segments SET zones = 2 WHERE zone = 8", 2),
        ("DELETE FROM args_index_segments WHERE zone = 8", 4),
    ],
    ids=["entry", "rows", "no rows", "times", "times of a segment", "zones of a segment", "segment"],
)
def test_check_finds_what_the_index_lacks_and_rebuild_texts_mends_it(ledger_file, damage, parts):
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--db", str(ledger_file)])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    assert said(ledger_file) == []
    connection = open_for_writing(ledger_file)
    connection.execute(damage)
    connection.close()
    assert said(ledger_file) == [
        ("texts", f"{parts} parts of their index lack what their rows have: run rebuild-texts")
    ]
    assert run("rebuild-texts", "--dry-run") == f"would mend {parts} parts\n"
    assert run("rebuild-texts") == "rebuilt the index of texts\n"
    assert run("rebuild-texts", "--dry-run") == "the index of texts is what the rows say\n"
    assert said(ledger_file) == []


def test_a_vacuum_leaves_rows_their_numbers(filled, database):
    filled.execute("DELETE FROM tool_call_log WHERE rowid % 3 = 0")
    before = filled.execute("SELECT rowid, id FROM tool_call_log ORDER BY rowid").fetchall()
    filled.close()
    done = CliRunner().invoke(app, ["vacuum", "--db", str(database)])
    assert done.exit_code == 0, done.stderr
    connection = open_for_writing(database)
    assert connection.execute("SELECT rowid, id FROM tool_call_log ORDER BY rowid").fetchall() == before
    connection.close()


@pytest.fixture
def indexing(connection: apsw.Connection) -> Iterator[tuple[Writer, Indexer]]:
    index = Indexer(connection)
    writer = Writer(connection, 50_000, indexer=index)
    yield writer, index
    writer.close()


def wait_until_indexed(index: Indexer, reading: apsw.Connection) -> None:
    deadline = time.monotonic() + 30
    while unindexed_rows(reading) > 32 or index.unindexed_rows > 32:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_writer_indexes_when_nothing_waits(indexing, database):
    writer, index = indexing
    reading = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    writer.record(batch(*[call(number) for number in range(500)])).result()
    wait_until_indexed(index, reading)
    answers = [writer.record(batch(*[call(number + first) for number in range(20)])) for first in range(500, 900, 20)]
    assert all(answer.result().stored == 20 for answer in answers)
    wait_until_indexed(index, reading)
    assert index.unindexed_rows == unindexed_rows(reading) == 900 + 1 - 28 * 32
    with reading:
        assert not any(text_index_differences(reading))
    reading.close()


def test_a_disk_without_room_for_the_index_takes_no_batch_with_it(indexing, connection, database, monkeypatch):
    writer, index = indexing
    reading = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    write_entries = text_segments._INSERT
    monkeypatch.setattr(indexer, "FAILED_SECONDS", 0.01)
    monkeypatch.setattr(text_segments, "_INSERT", "INSERT INTO no_such_table VALUES (?, ?, ?, ?)")
    for first in range(0, 200, 20):
        assert writer.record(batch(*[call(first + number) for number in range(20)])).result().stored == 20
    assert unindexed_rows(reading) == 200
    monkeypatch.setattr(text_segments, "_INSERT", write_entries)
    wait_until_indexed(index, reading)
    reading.close()


def test_what_follows_a_nul_is_in_the_index(filled):
    write(filled, audit_row(args_summary="a\0b"), audit_row(args_summary="a\0 haystack"))
    write(filled, *[call(number) for number in range(1000, 1100)], audit_row(args_summary="the haystack"))
    list(index_zones(filled))
    assert filled.execute("SELECT count(*) FROM args_index WHERE trigram IN ('hay', 'ack')").fetchall() == [(2,)]
