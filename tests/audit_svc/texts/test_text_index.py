"""The index of texts: made, merged, pruned, checked and made again, and nothing is wrong when a step is the last."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from audit_svc.__main__ import program
from audit_svc.ledger import idle
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.sqlite.open.served import mark_served
from audit_svc.sqlite.text import text_index
from audit_svc.sqlite.text.indexer import Indexer
from audit_svc.sqlite.text.text_index import (
    first_unindexed,
    index_rows,
    rebuild_text_index,
    text_index_differences,
    unindexed_rows,
)
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.samples import audit_row, batch
from tests.audit_svc.texts.ledger import BEGIN, call, listed, plain, prune_all, write
from tests.support.command_line import invoke


def test_all_rows_are_indexed(filled):
    assert unindexed_rows(filled) == 0
    assert filled.execute("SELECT count(*), max(zone) FROM args_index_zones").fetchall() == [(32, 31)]
    write(filled, call(1000))
    assert unindexed_rows(filled) == 1
    list(index_rows(filled))
    assert unindexed_rows(filled) == 0
    assert not any(text_index_differences(filled))


def test_a_step_ends_with_the_row_that_makes_it_as_many_characters_as_it_may_have(connection):
    write(connection, *[audit_row(args_summary="x" * size) for size in (50, 9, 200, 20, 20, 20, 20)])
    ends = []
    for _ in index_rows(connection):
        if (end := first_unindexed(connection)) not in ends:
            ends.append(end)
    assert [end - ends[0] for end in ends] == [0, 3, 4]
    assert unindexed_rows(connection) == 0


@pytest.fixture
def unindexed() -> apsw.Connection:
    """Calls of some zones, in memory."""
    connection = apsw.Connection(":memory:")
    migrate.up(connection, migrate.load_migrations())
    write(connection, *[call(number) for number in range(5 * 32 + 1)])
    return connection


def copy_of(connection: apsw.Connection) -> apsw.Connection:
    """What a process that ends now leaves."""
    copy = apsw.Connection(":memory:")
    copy.deserialize("main", connection.serialize("main"))
    return copy


@pytest.mark.long
def test_pages_are_right_after_each_step_and_a_process_that_ends_there_is_gone_on_from(unindexed):
    found = plain(unindexed, "file-3")
    steps = 0
    for _ in index_rows(unindexed):
        steps += 1
        copy = copy_of(unindexed)
        assert listed(copy, 100, args_contain="file-3") == found
        assert not any(text_index_differences(copy))
        if steps % 5 == 0:
            list(index_rows(copy))
            assert unindexed_rows(copy) == 0
            assert not any(text_index_differences(copy))
        copy.close()
    assert steps > 20


def test_a_prune_between_two_steps_leaves_nothing_that_stays(unindexed):
    steps = sum(1 for _ in index_rows(copy_of(unindexed)))
    for step in range(0, steps, 7):
        copy = copy_of(unindexed)
        indexing = index_rows(copy)
        list(itertools.islice(indexing, step))
        prune_all(copy, BEGIN + 2 * HOUR_MS)
        list(indexing)
        list(index_rows(copy))
        # The call that came last stays.
        assert copy.execute("SELECT count(*) FROM args_index").fetchall() == [(1,)]
        assert copy.execute("SELECT zone FROM args_index_zones").fetchall() == [(5,)]
        assert listed(copy, 100, args_contain="file-0") == ["0160"]
        copy.close()


def test_what_is_pruned_leaves_the_index(filled):
    before = index_bytes(filled)
    prune_all(filled, BEGIN + 2 * HOUR_MS)
    list(index_rows(filled))
    # 720 rows have gone.
    assert filled.execute("SELECT min(zone), count(*) FROM args_index_zones").fetchall() == [(22, 10)]
    assert filled.execute("SELECT count(*) FROM args_index").fetchall() == [(280,)]
    assert index_bytes(filled) < before / 2
    assert listed(filled, 10, args_contain="needle") == ["0907"]
    assert not any(text_index_differences(filled))


def index_bytes(connection: apsw.Connection) -> int:
    ((size,),) = connection.execute("SELECT sum(length(block)) FROM args_index_data")
    return int(size)


@pytest.fixture
def ledger_file(filled: apsw.Connection, database: Path) -> Path:
    filled.close()
    mark_served(database)
    return database


def said(database: Path) -> dict[str, str]:
    return {found.check: found.detail for found in check(database, lambda *_: None) if found.state != "ok"}


NINTH = "rowid BETWEEN 288 AND 319"


@pytest.mark.long
@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (
            "INSERT INTO args_index (args_index, rowid, args_summary, zone) "
            "SELECT 'delete', rowid, args_summary, '' FROM tool_call_log WHERE rowid = 300",
            1,
        ),
        (f"UPDATE tool_call_log SET args_summary = 'other' WHERE {NINTH}", 1),
        ("UPDATE args_index_zones SET latest = latest - 1 WHERE zone = 9", 1),
        ("UPDATE args_index_zones SET earliest = earliest + 1 WHERE zone < 3", 3),
        ("DELETE FROM args_index_zones WHERE zone = 8", 1),
    ],
    ids=["row", "texts", "latest", "earliest", "zone"],
)
def test_check_finds_what_the_index_lacks_and_rebuild_texts_mends_it(ledger_file, damage, parts):
    def run(*words: str) -> str:
        done = invoke(program, [*words, "--db", str(ledger_file)])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    assert said(ledger_file) == {}
    connection = open_for_writing(ledger_file)
    connection.execute(damage)
    connection.close()
    assert said(ledger_file) == {"texts": f"{parts} parts of their index lack what their rows have: run rebuild-texts"}
    mended = "1 part" if parts == 1 else f"{parts} parts"
    assert run("rebuild-texts", "--dry-run") == f"would mend {mended}\n"
    assert run("rebuild-texts") == "rebuilt the index of texts\n"
    assert run("rebuild-texts", "--dry-run") == "the index of texts is what the rows say\n"
    assert said(ledger_file) == {}


@pytest.mark.long
def test_a_ledger_whose_index_is_damaged_is_served_and_check_and_rebuild_texts_mend_it(ledger_file):
    connection = open_for_writing(ledger_file)
    connection.execute("UPDATE args_index_data SET block = zeroblob(length(block)) WHERE id > 100")
    connection.close()
    assert "texts" in said(ledger_file)
    connection = open_for_writing(ledger_file)
    assert listed(connection, 100) != []
    connection.close()
    done = invoke(program, ["rebuild-texts", "--db", str(ledger_file)])
    assert done.exit_code == 0, done.stderr
    assert said(ledger_file) == {}


@pytest.mark.long
def test_an_index_made_again_is_the_same(filled):
    list(rebuild_text_index(filled))
    assert unindexed_rows(filled) == 0
    assert not any(text_index_differences(filled))


def test_a_vacuum_leaves_rows_their_numbers(filled, database):
    filled.execute("DELETE FROM tool_call_log WHERE rowid % 3 = 0")
    before = filled.execute("SELECT rowid, id FROM tool_call_log ORDER BY rowid").fetchall()
    filled.close()
    done = invoke(program, ["vacuum", "--db", str(database)])
    assert done.exit_code == 0, done.stderr
    connection = open_for_writing(database)
    assert connection.execute("SELECT rowid, id FROM tool_call_log ORDER BY rowid").fetchall() == before
    assert listed(connection, 100, args_contain="needle") == plain(connection, "needle")
    connection.close()


@pytest.fixture
def indexing(connection: apsw.Connection) -> Iterator[tuple[Writer, Indexer]]:
    index = Indexer(connection)
    writer = Writer(connection, 50_000, indexer=index)
    yield writer, index
    writer.close()


def wait_until_indexed(index: Indexer, reading: apsw.Connection) -> None:
    deadline = time.monotonic() + 120
    while unindexed_rows(reading) or index.unindexed_rows:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_the_writer_indexes_when_nothing_waits(indexing, database):
    writer, index = indexing
    reading = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    writer.record(batch(*[call(number) for number in range(500)])).result()
    wait_until_indexed(index, reading)
    answers = [writer.record(batch(*[call(number + first) for number in range(20)])) for first in range(500, 900, 20)]
    assert all(answer.result().stored == 20 for answer in answers)
    wait_until_indexed(index, reading)
    with reading:
        assert not any(text_index_differences(reading))
        assert reading.execute("SELECT tool_calls FROM session_usage_summed").fetchall() == [(900,)]
    reading.close()


def test_a_disk_without_room_for_the_index_takes_no_batch_with_it_nor_the_sums_of_sessions(
    indexing, database, monkeypatch
):
    writer, index = indexing
    reading = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    add_times = text_index._ADD_TIMES
    monkeypatch.setattr(idle, "FAILED_SECONDS", 0.01)
    monkeypatch.setattr(text_index, "_ADD_TIMES", "INSERT INTO no_such_table VALUES (:first, :last, :zone_rows)")
    for first in range(0, 200, 20):
        assert writer.record(batch(*[call(first + number) for number in range(20)])).result().stored == 20
    deadline = time.monotonic() + 120
    while reading.execute("SELECT tool_calls FROM session_usage_summed").fetchall() != [(200,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert unindexed_rows(reading) == 200
    monkeypatch.setattr(text_index, "_ADD_TIMES", add_times)
    wait_until_indexed(index, reading)
    reading.close()
