"""The search by the index of texts: it finds what a plain scan finds, whatever is late, pruned or not indexed."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import Damaged
from audit_svc.ledger.query import fingerprint_of, query_of
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.sql.read import tool_calls, walks
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.read.reader import Reader
from audit_svc.sqlite.text import text_index, text_search
from audit_svc.sqlite.text.text_index import index_rows, text_index_differences, trigrams_of
from service_kit.paging import encode_token
from tests.audit_svc import asking
from tests.audit_svc.cost import machine_steps
from tests.audit_svc.samples import audit_row, question, row_of
from tests.audit_svc.texts.ledger import BEGIN, Request, call, listed, plain, prune_all, write
from tests.support.examples import examples

RARE = 'éÉ%_\\,\n\u212a\ufffd\ufffe\uffff"*\U000f0000'
STEPS = st.lists(
    st.one_of(st.integers(1, 80), st.sampled_from(["index", "begin to index", "prune 1", "prune 3", "index, prune 2"])),
    min_size=3,
    max_size=8,
)


def some_text(chance: random.Random, sizes: range) -> str:
    """Few letters, so that it is in many rows, and seldom what could be taken for something else."""
    letters = "aAab" if chance.random() < 0.8 else "aB\x01" + RARE
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


@pytest.mark.long
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=STEPS, size=st.integers(2, 20))
def test_pages_are_those_of_a_plain_scan_over_all_rows(monkeypatch, seed, steps, size):
    chance = random.Random(seed)
    connection = apsw.Connection(":memory:")
    migrate.up(connection, migrate.load_migrations())
    for step in steps:
        if isinstance(step, int):
            write(connection, *some_calls(chance, step))
        elif step == "index":
            list(index_rows(connection))
        elif step == "begin to index":
            list(itertools.islice(index_rows(connection), chance.randrange(chance.choice((10, 100)))))
        elif step == "index, prune 2":
            indexing = index_rows(connection)
            list(itertools.islice(indexing, chance.randrange(chance.choice((10, 100)))))
            prune_all(connection, BEGIN + 2 * HOUR_MS)
            list(indexing)
        else:
            prune_all(connection, BEGIN + int(step[-1]) * HOUR_MS)
    assert not any(text_index_differences(connection))
    first, before = BEGIN + HOUR_MS + 2, BEGIN + 3 * HOUR_MS + 1
    for sizes in (range(3, 5), range(3, 5), range(4, 7), range(1, 3)):
        text = some_text(chance, sizes)
        monkeypatch.setattr(text_search, "VAIN", chance.choice((1, 1, 4, 32)))
        monkeypatch.setattr(text_search, "MAX_TRIGRAMS", chance.choice((1, 8)))
        assert listed(connection, size, args_contain=text) == plain(connection, text)
        found = listed(connection, size, args_contain=text, tool_name="bash")
        assert found == plain(connection, text, lambda row: row[3] == "bash")
        found = listed(connection, size, args_contain=text, created_from_ms=first, created_before_ms=before)
        assert found == plain(connection, text, lambda row: first <= row[2] < before)
    connection.close()


def asked_of(connection: apsw.Connection, text: str) -> list[str]:
    """The statements that find text."""
    asked: list[str] = []

    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        if sql.startswith("SELECT"):
            asked.append(sql)
        return True

    connection.exec_trace = trace
    found = listed(connection, 100, args_contain=text)
    connection.exec_trace = None
    assert found == plain(connection, text)
    return asked


def test_a_text_that_is_rare_is_looked_for_by_the_index(filled):
    plans = [
        str(filled.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")).fetchall())
        for sql in asked_of(filled, "needle")
    ]
    for part in (
        "SEARCH tool_call_log USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN args_index VIRTUAL TABLE INDEX 0:M",
    ):
        assert any(part in plan for plan in plans), plans


def test_a_zone_is_asked_for_once_and_read_to_its_end_alone(filled, monkeypatch):
    looks = [sql for sql in asked_of(filled, "nowhere at all") if sql == text_search._MATCHING]
    assert len(looks) == 32
    monkeypatch.setattr(text_search, "VAIN", 32)
    # Each page of 101 asks once, finds that nearly all rows have it, and goes back to the walk.
    looks = [sql for sql in asked_of(filled, "path") if sql == text_search._MATCHING]
    assert len(looks) == 10


def steps_of(connection: apsw.Connection, text: str) -> int:
    return machine_steps(connection, lambda: listed(connection, 100, args_contain=text))


@pytest.mark.long
@pytest.mark.parametrize("text", ["needle", "nowhere", "file-1needle", "path: file-1needle"])
def test_a_text_that_is_rare_or_nowhere_costs_a_part_of_the_walk(filled, monkeypatch, text):
    monkeypatch.setattr(text_index, "ZONE_ROWS", 1024)
    list(text_index.rebuild_text_index(filled))
    by_index = steps_of(filled, text)
    monkeypatch.setattr(walks, "LONG_WALK", 10**9)
    assert 2 * by_index < steps_of(filled, text)


def test_a_text_that_is_frequent_is_met_on_the_walk(filled, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(text_search, "TextSearch", None)
    assert len(asking.list_tool_calls(filled, question(Request, args_contain="file-1", page_size=5)).tool_calls) == 5


@pytest.mark.parametrize("looks", [1, 3, 5, 6])
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
        page = asking.list_tool_calls(filled, question(Request, args_contain="needle", page_token=token))
        ids, token, pages = ids + [row_of(one).id for one in page.tool_calls], page.next_page_token, pages + 1
    assert pages > 1
    assert ids == plain(filled, "needle")


def test_rows_that_no_index_knows_are_walked(filled, monkeypatch):
    monkeypatch.setattr(text_search, "MAX_UNINDEXED", -1)
    monkeypatch.setattr(text_search.TextSearch, "_rarest", None)
    assert listed(filled, 100, args_contain="needle") == plain(filled, "needle")


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        ("rm\x01 -rf /home", "-rf"),
        ("rm\x01 -rf /home", "m\x01 -RF"),
        ("100%_done\\", "%_DONE\\"),
        ('say "x" AND y*', '"x" and'),
        ("Å Kelvin \u212a", "kelvin \u212a"),
        ("ab", "AB"),
    ],
)
def test_a_text_is_found_whatever_it_and_the_summary_are_made_of(filled, summary, text):
    for number in range(3):
        write(filled, audit_row(id=f"new-{number}", args_summary=summary, created_at_ms=BEGIN + number))
        if number == 1:
            list(index_rows(filled))
    assert listed(filled, 2, args_contain=text) == ["new-2", "new-1", "new-0"]
    assert listed(filled, 2, args_contain=text.replace("e", "\u00e9").replace("x", "X\u0301") + "!") == []


def test_a_trigram_has_no_nul():
    assert trigrams_of("ab") == trigrams_of("ab\0cd") == []
    assert trigrams_of("abcabcÉ\0") == ["abc", "bca", "cab", "bcÉ"]


@pytest.mark.long
def test_zones_beyond_the_last_mark_are_told_apart_by_their_rows(filled, monkeypatch):
    monkeypatch.setattr(text_index, "_MARKS", (0xF0000, 3))
    list(text_index.rebuild_text_index(filled))
    assert not any(text_index_differences(filled))
    assert listed(filled, 3, args_contain="file-3") == plain(filled, "file-3")


def test_a_page_that_begins_deep_finds_what_came_late(filled):
    late = audit_row(id="late", args_summary="path: NEEDLE", created_at_ms=BEGIN + 1)
    write(filled, late, *[call(number) for number in range(1000, 1100)])
    list(index_rows(filled))
    request = question(Request, args_contain="needle")
    request.page_token = encode_token((BEGIN + 100, 0), fingerprint_of(request))
    assert [row_of(one).id for one in asking.list_tool_calls(filled, request).tool_calls] == ["late"]


def test_rows_that_came_late_do_not_hide_newer_ones_that_are_indexed(filled):
    late = [audit_row(id=name, args_summary="needle", created_at_ms=BEGIN + 5_000_000) for name in ("a", "b")]
    write(filled, *late)
    assert listed(filled, 1, args_contain="needle") == ["0907", "0607", "b", "a", "0307", "0007"]


def test_rows_that_are_indexed_in_the_middle_of_a_search_are_found_once(connection, database, monkeypatch):
    write(connection, *[call(number) for number in range(321)])
    rarest = text_search.TextSearch._rarest

    def late(search: text_search.TextSearch) -> list[str]:
        list(index_rows(connection))
        return rarest(search)

    monkeypatch.setattr(text_search.TextSearch, "_rarest", late)
    reading = open_for_reading(database)
    assert listed(reading, 100, args_contain="needle") == ["0307", "0007"]
    reading.close()


async def test_a_search_that_meets_damage_says_what_to_do(filled, database):
    filled.execute("UPDATE args_index_data SET block = zeroblob(length(block)) WHERE id > 100")
    reader = Reader([open_for_reading(database)])
    with pytest.raises(Damaged, match="audit-svc check"):
        await reader.ask(tool_calls.list_tool_calls, query_of(question(Request, args_contain="needle")))
    reader.close()
