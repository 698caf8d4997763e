"""The index of texts: it finds what LIKE finds, whatever is late, pruned, half done or not indexed yet."""

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from typer.testing import CliRunner

from audit_svc.__main__ import app
from audit_svc.store import indexer, listing, migrate, text_index, text_search, tool_calls
from audit_svc.store.check import check
from audit_svc.store.indexer import Indexer
from audit_svc.store.inserts import Inserts
from audit_svc.store.opening import open_for_writing
from audit_svc.store.prune import Prune
from audit_svc.store.rows import read_batch
from audit_svc.store.steps import HOUR_MS
from audit_svc.store.text_index import (
    index_zones,
    pack,
    rebuild_text_index,
    text_index_differences,
    text_trigrams,
    unindexed_rows,
    unpack,
)
from audit_svc.store.transactions import transaction
from audit_svc.store.usage import Usage
from audit_svc.store.writer import Writer
from service_kit.paging import encode_token
from tests.audit_svc.samples import NOW_MS, audit_row, batch

Request = audit_pb2.ListToolCallsRequest
BEGIN = NOW_MS - NOW_MS % HOUR_MS - 10 * HOUR_MS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zones of 32 rows in blocks of two, made in many steps; no walk is too short for the index."""
    for name, value in {"BLOCK_ROWS": 2, "ZONE_BLOCKS": 16, "BLOCKS_A_STEP": 4}.items():
        monkeypatch.setattr(text_index, name, value)
    for name, value in {"CHARACTERS_A_STEP": 20, "BYTES_A_STEP": 40, "ENTRIES_A_COMMIT": 3}.items():
        monkeypatch.setattr(text_index, name, value)
    monkeypatch.setattr(text_search, "BLOCKS_AT_ONCE", 8)
    monkeypatch.setattr(tool_calls, "LONG_WALK", -1)
    monkeypatch.setattr(tool_calls, "FIRST_WINDOW", 2)
    monkeypatch.setattr(indexer, "QUIET_SECONDS", 0.0)


def write(connection: apsw.Connection, *rows: audit_pb2.AuditRow) -> None:
    accepted = read_batch(audit_pb2.RecordRequest(rows=rows), NOW_MS)
    assert not accepted.rejections
    with transaction(connection):
        Inserts(connection).write([(accepted, Usage(accepted.tool_calls, accepted.costs))], NOW_MS)


def plain(connection: apsw.Connection, text: str, filters: str = "1") -> list[str]:
    """The ids of the rows that have text, by LIKE over all of them, in the listing's order."""
    escaped = "".join(f"\\{character}" if character in "\\%_" else character for character in text)
    sql = f"SELECT id FROM tool_call_log WHERE args_summary LIKE ? ESCAPE '\\' AND {filters}"
    return [str(row[0]) for row in connection.execute(f"{sql} ORDER BY created_at DESC, id DESC", (f"%{escaped}%",))]


def listed(connection: apsw.Connection, size: int, **filters: Any) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    token = ""
    for _ in range(1000):
        page = tool_calls.list_tool_calls(connection, Request(**filters, page_size=size, page_token=token))
        assert len(page.rows) <= size
        ids += [row.id for row in page.rows]
        token = page.next_page_token
        if not token:
            return ids
    raise AssertionError("the pages do not end")


RARE = "éÉ%_\\,\n\u212a\ufffd\ufffe\uffff"
STEPS = st.lists(
    st.one_of(st.integers(1, 80), st.sampled_from(["index", "begin to index", "prune 1", "prune 3"])),
    min_size=3,
    max_size=8,
)


def some_text(chance: random.Random, sizes: range) -> str:
    """Few letters, so that it is in many rows, and seldom what could be taken for something else."""
    letters = "aAab" if chance.random() < 0.8 else "aB\0" + RARE
    return "".join(chance.choices(letters, k=chance.choice(sizes)))


def some_calls(chance: random.Random, count: int) -> Iterator[audit_pb2.AuditRow]:
    """Several of one millisecond, late ones, ids in the order of neither."""
    latest = chance.randrange(1, 6)
    for _ in range(count):
        yield audit_row(
            id=f"{chance.getrandbits(64):016x}",
            created_at_ms=BEGIN + chance.randrange(latest) * HOUR_MS + chance.randrange(3),
            args_summary=some_text(chance, range(8)),
            tool_name=chance.choice(("read", "bash")),
        )


def prune_all(connection: apsw.Connection, before_ms: int) -> None:
    prune = Prune(before_ms, "ada")
    done = False
    while not done:
        with transaction(connection):
            done = prune.step(connection).done


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=STEPS, size=st.integers(2, 20))
def test_pages_by_the_index_are_those_of_like_over_all_rows(monkeypatch, seed, steps, size):
    monkeypatch.setattr(text_search, "ZONES_TRIED", 1)
    chance = random.Random(seed)
    connection = apsw.Connection(":memory:")
    migrate.up(connection, migrate.load_migrations())
    for step in steps:
        if isinstance(step, int):
            write(connection, *some_calls(chance, step))
        elif step == "index":
            list(index_zones(connection))
        elif step == "begin to index":
            list(itertools.islice(index_zones(connection), chance.randrange(60)))
        else:
            prune_all(connection, BEGIN + int(step[-1]) * HOUR_MS)
    assert not any(text_index_differences(connection))
    first, before = BEGIN + HOUR_MS + 2, BEGIN + 3 * HOUR_MS + 1
    for _ in range(4):
        text = some_text(chance, range(3, 5))
        assert listed(connection, size, args_contain=text) == plain(connection, text)
        monkeypatch.setattr(tool_calls, "WALK_BLOCKS", chance.choice((0.0, 1.0)))
        found = listed(connection, size, args_contain=text, tool_name="bash")
        assert found == plain(connection, text, "tool_name = 'bash'")
        found = listed(connection, size, args_contain=text, created_from_ms=first, created_before_ms=before)
        assert found == plain(connection, text, f"created_at >= {first} AND created_at < {before}")
    connection.close()


@given(st.sets(st.integers(0, 15)))
def test_blocks_are_packed_and_unpacked(blocks):
    packed = pack("".join(map(chr, sorted(blocks))))
    assert unpack(packed) == sum(1 << block for block in blocks)
    assert len(packed) <= 2


def test_the_constants_fit_one_another(monkeypatch):
    monkeypatch.undo()
    assert text_index.ZONE_BLOCKS % text_index.BLOCKS_A_STEP == 0
    assert text_index.ZONE_BLOCKS == len(text_index._BITS) < 0xD800
    assert text_index.zone_rows() == 16_384
    few, many = range(0, 1024, 17), range(0, 1024, 16)
    for blocks in (few, many):
        assert unpack(pack("".join(map(chr, blocks)))) == sum(1 << block for block in blocks)


@pytest.fixture
def filled(connection: apsw.Connection) -> apsw.Connection:
    """1,000 calls, of which a few have a rare text; all that can be is indexed."""
    for first in range(0, 1000, 100):
        numbers = range(first, first + 100)
        write(connection, *[call(number) for number in numbers])
    list(index_zones(connection))
    return connection


def call(number: int) -> audit_pb2.AuditRow:
    summary = "path: Needle" if number % 300 == 7 else f"path: file-{number % 10}"
    return audit_row(id=f"{number:04}", args_summary=summary, created_at_ms=BEGIN + number * 10_000)


def test_all_that_is_full_is_indexed_and_the_last_row_never_is(filled):
    assert unindexed_rows(filled) == 1000 + 1 - 31 * 32
    assert filled.execute("SELECT count(*), max(zone) FROM args_index_zones").fetchall() == [(31, 30)]
    write(filled, *[call(number) for number in range(1000, 1023)])
    list(index_zones(filled))
    assert unindexed_rows(filled) == 32
    write(filled, call(1023))
    list(index_zones(filled))
    assert unindexed_rows(filled) == 1


def test_r15_a_text_that_is_rare_is_looked_for_by_the_index(filled, monkeypatch):
    asked: list[str] = []

    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        asked.append(sql)
        return True

    filled.exec_trace = trace
    assert listed(filled, 100, args_contain="needle") == ["0907", "0607", "0307", "0007"]
    filled.exec_trace = None
    plans = {
        sql.split(" WHERE ")[0][-40:]: str(
            filled.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")).fetchall()
        )
        for sql in asked
    }
    (rows,) = [plan for plan in plans.values() if "json_each" in plan or "VIRTUAL TABLE" in plan]
    assert "SEARCH tool_call_log USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in rows
    assert any("SEARCH args_index USING PRIMARY KEY (zone=? AND trigram=?)" in plan for plan in plans.values())
    zones = "SEARCH args_index_zones USING COVERING INDEX idx_args_index_zones_latest (latest>?)"
    assert any(zones in plan for plan in plans.values())


def steps_of(connection: apsw.Connection, text: str) -> int:
    count = 0

    def another() -> bool:
        nonlocal count
        count += 1
        return False

    connection.set_progress_handler(another, 10)
    listed(connection, 100, args_contain=text)
    connection.set_progress_handler(None)
    return count * 10


@pytest.mark.parametrize("text", ["needle", "nowhere", "file-1needle"])
def test_a_text_that_is_rare_or_nowhere_costs_a_part_of_the_walk(filled, monkeypatch, text):
    by_index = steps_of(filled, text)
    monkeypatch.setattr(tool_calls, "LONG_WALK", 10**9)
    assert 3 * by_index < steps_of(filled, text)


def test_a_text_that_is_frequent_is_met_on_the_walk(filled, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(tool_calls, "TextSearch", None)
    assert len(tool_calls.list_tool_calls(filled, Request(args_contain="file-1", page_size=5)).rows) == 5


@pytest.mark.parametrize("looks", [2, 5, 6])
def test_a_search_that_is_given_up_goes_on_with_its_token(filled, monkeypatch, looks):
    class Late:
        """A clock that is past every deadline once it has been looked at a few times."""

        def __init__(self) -> None:
            self.times = itertools.chain([0.0] * looks, itertools.repeat(1e9))

        def monotonic(self) -> float:
            return next(self.times)

    ids: list[str] = []
    token, pages = "", 0
    while token or not pages:
        late = Late()
        monkeypatch.setattr("time.monotonic", late.monotonic)
        page = tool_calls.list_tool_calls(filled, Request(args_contain="needle", page_token=token))
        ids, token, pages = ids + [row.id for row in page.rows], page.next_page_token, pages + 1
    assert pages > 1
    assert ids == plain(filled, "needle")


def test_a_search_that_the_index_does_not_narrow_goes_back_to_the_walk(filled, monkeypatch):
    asked: list[int] = []
    candidates = text_search.TextSearch._candidates

    def noted(search: text_search.TextSearch, zone: int) -> list[int]:
        asked.append(zone)
        return candidates(search, zone)

    monkeypatch.setattr(text_search.TextSearch, "_candidates", noted)
    assert listed(filled, 100, args_contain="path", errors_only=True) == []
    assert asked == []
    write(
        filled, *[audit_row(args_summary="none", error="x", created_at_ms=BEGIN + 9 * HOUR_MS + n) for n in range(40)]
    )
    assert listed(filled, 100, args_contain="path", errors_only=True) == []
    assert len(asked) == 9
    assert len(listed(filled, 1000, args_contain="path")) == 1000
    assert len(set(asked)) == 31


def test_rows_that_no_index_knows_are_walked_as_before(filled, monkeypatch):
    monkeypatch.setattr(text_search, "MAX_UNINDEXED", 0)
    monkeypatch.setattr(text_search.TextSearch, "_candidates", None)
    assert listed(filled, 100, args_contain="needle") == plain(filled, "needle")


def test_what_was_begun_and_not_ended_is_begun_again(filled):
    write(filled, *[call(number) for number in range(1000, 1100)])
    entries = filled.execute("SELECT count(*) FROM args_index").fetchall()
    steps = index_zones(filled)
    while filled.execute("SELECT count(*) FROM args_index").fetchall() == entries:
        next(steps)
    del steps
    list(index_zones(filled))
    assert list(text_index_differences(filled)) == [False] * 34
    found = filled.execute("SELECT * FROM args_index ORDER BY zone, trigram").fetchall()
    list(rebuild_text_index(filled))
    assert filled.execute("SELECT * FROM args_index ORDER BY zone, trigram").fetchall() == found


def test_what_is_pruned_leaves_the_index(filled):
    prune_all(filled, BEGIN + 2 * HOUR_MS)
    # 720 rows: of the zone that the time cuts, nothing has gone.
    assert filled.execute("SELECT min(zone), count(*) FROM args_index_zones").fetchall() == [(22, 9)]
    assert filled.execute("SELECT min(zone) FROM args_index").fetchall() == [(22,)]
    assert listed(filled, 10, args_contain="needle") == ["0907"]
    assert not any(text_index_differences(filled))


@pytest.fixture
def ledger_file(filled: apsw.Connection, database: Path) -> Path:
    filled.close()
    return database


def said(database: Path) -> list[tuple[str, str]]:
    return [(found.check, found.detail) for found in check(database, lambda *_: None) if found.state != "ok"]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM args_index WHERE trigram = 'nee' AND zone = 9",
        "UPDATE args_index SET blocks = zeroblob(2) WHERE trigram = 'pat' AND zone = 9",
        "UPDATE args_index_zones SET latest = latest - 1 WHERE zone = 9",
    ],
    ids=["entry", "blocks", "times"],
)
def test_check_finds_what_the_index_lacks_and_rebuild_texts_mends_it(ledger_file, damage):
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--db", str(ledger_file)])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    assert said(ledger_file) == []
    connection = open_for_writing(ledger_file)
    connection.execute(damage)
    connection.close()
    assert said(ledger_file) == [("texts", "1 parts of their index lack what their rows have: run rebuild-texts")]
    assert run("rebuild-texts", "--dry-run") == "would mend 1 parts\n"
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
    assert not any(text_index_differences(reading))
    reading.close()


def test_a_disk_without_room_for_the_index_takes_no_batch_with_it(indexing, connection, database, monkeypatch):
    writer, index = indexing
    reading = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    write_entries = text_index._INSERT
    monkeypatch.setattr(indexer, "FAILED_SECONDS", 0.01)
    monkeypatch.setattr(text_index, "_INSERT", "INSERT INTO no_such_table VALUES (?, ?, ?)")
    for first in range(0, 200, 20):
        assert writer.record(batch(*[call(first + number) for number in range(20)])).result().stored == 20
    assert unindexed_rows(reading) == 200
    monkeypatch.setattr(text_index, "_INSERT", write_entries)
    wait_until_indexed(index, reading)
    reading.close()


def test_texts_without_trigrams_are_walked():
    assert text_trigrams("ab") == text_trigrams("a\0bcd") == text_trigrams("a\ufffeb\uffffc") == []
    assert text_trigrams("AbCabcÉ") == ["abc", "bca", "cab", "bcÉ"]


def test_a_page_that_begins_deep_finds_what_came_late(filled):
    late = audit_row(id="late", args_summary="path: NEEDLE", created_at_ms=BEGIN + 1)
    write(filled, late, *[call(number) for number in range(1000, 1100)])
    list(index_zones(filled))
    request = Request(args_contain="needle")
    request.page_token = encode_token((BEGIN + 100, ""), listing.filters(request))
    assert [row.id for row in tool_calls.list_tool_calls(filled, request).rows] == ["late"]


def test_rows_that_came_late_do_not_hide_newer_ones_that_are_indexed(filled):
    late = [audit_row(id=name, args_summary="needle", created_at_ms=BEGIN + 5_000_000) for name in ("a", "b")]
    write(filled, *late)
    assert listed(filled, 1, args_contain="needle") == ["0907", "0607", "b", "a", "0307", "0007"]


def test_what_follows_a_nul_is_in_the_index(filled):
    write(filled, audit_row(args_summary="a\0b"), audit_row(args_summary="a\0 haystack"))
    write(filled, *[call(number) for number in range(1000, 1100)], audit_row(args_summary="the haystack"))
    list(index_zones(filled))
    assert filled.execute("SELECT count(*) FROM args_index WHERE trigram IN ('hay', 'ack')").fetchall() == [(2,)]
