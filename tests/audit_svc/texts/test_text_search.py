"""The search by the index of texts: it finds what LIKE finds, whatever is late, pruned, half done or not indexed."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from pyroaring import BitMap

from audit_svc.errors import Damaged
from audit_svc.ledger.query import fingerprint_of
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.read import tool_calls
from audit_svc.sqlite.read.reader import Reader
from audit_svc.sqlite.text import text_search, text_segments
from audit_svc.sqlite.text.text_index import index_zones, text_index_differences
from audit_svc.sqlite.text.text_segments import Segment
from audit_svc.sqlite.text.text_trigrams import text_trigrams
from service_kit.paging import encode_token
from tests.audit_svc import asking
from tests.audit_svc.cost import machine_steps
from tests.audit_svc.samples import audit_row
from tests.audit_svc.texts.ledger import BEGIN, Request, call, listed, plain, prune_all, write

RARE = "éÉ%_\\,\n\u212a\ufffd\ufffe\uffff"
STEPS = st.lists(
    st.one_of(st.integers(1, 80), st.sampled_from(["index", "begin to index", "prune 1", "prune 3", "index, prune 2"])),
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
            list(itertools.islice(index_zones(connection), chance.randrange(chance.choice((60, 1000)))))
        elif step == "index, prune 2":
            indexing = index_zones(connection)
            list(itertools.islice(indexing, chance.randrange(chance.choice((60, 1000)))))
            prune_all(connection, BEGIN + 2 * HOUR_MS)
            list(indexing)
        else:
            prune_all(connection, BEGIN + int(step[-1]) * HOUR_MS)
    assert not any(text_index_differences(connection))
    first, before = BEGIN + HOUR_MS + 2, BEGIN + 3 * HOUR_MS + 1
    for _ in range(4):
        text = some_text(chance, range(3, 5))
        assert listed(connection, size, args_contain=text) == plain(connection, text)
        monkeypatch.setattr(tool_calls, "WALK_ROWS", chance.choice((0.0, 1.0)))
        found = listed(connection, size, args_contain=text, tool_name="bash")
        assert found == plain(connection, text, "tool_name = 'bash'")
        found = listed(connection, size, args_contain=text, created_from_ms=first, created_before_ms=before)
        assert found == plain(connection, text, f"created_at >= {first} AND created_at < {before}")
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


def test_r15_a_text_that_is_rare_is_looked_for_by_the_index(filled, monkeypatch):
    asked = asked_of(filled, "needle")
    plans = {
        sql.split(" WHERE ")[0][-40:]: str(
            filled.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")).fetchall()
        )
        for sql in asked
    }
    (rows,) = [plan for plan in plans.values() if "json_each" in plan or "VIRTUAL TABLE" in plan]
    assert "SEARCH tool_call_log USING INTEGER PRIMARY KEY (rowid=?)" in rows
    for part in (
        "SEARCH args_index USING INDEX sqlite_autoindex_args_index_1 (segment=? AND trigram=?)",
        "SEARCH args_index_segments USING INDEX idx_args_index_segments_latest (latest>?)",
    ):
        assert any(part in plan for plan in plans.values())


@pytest.mark.parametrize(
    ("text", "most"), [("needle", 1), ("haystack", 2)], ids=["what costs more than the rows", "what rules out none"]
)
def test_no_trigram_is_looked_up_that_costs_more_than_what_it_rules_out(filled, text, most):
    """A segment has one row with the former text, which is quicker read; six with the other, whose trigrams agree."""
    for first in range(1000, 3000, 100):
        texts = ["haystack" if number % 20 == 0 else "path" for number in range(100)]
        write(filled, *[audit_row(id=f"{first + number}", args_summary=text) for number, text in enumerate(texts)])
    list(index_zones(filled))
    ((segments,),) = filled.execute("SELECT count(*) FROM args_index_segments")
    looks = [sql for sql in asked_of(filled, text) if sql == text_segments.ROWS]
    assert segments <= len(looks) <= most * segments + len(text_trigrams(text))


def steps_of(connection: apsw.Connection, text: str) -> int:
    return machine_steps(connection, lambda: listed(connection, 100, args_contain=text))


@pytest.mark.parametrize("text", ["needle", "nowhere", "file-1needle", "path: file-1needle"])
def test_a_text_that_is_rare_or_nowhere_costs_a_part_of_the_walk(filled, monkeypatch, text):
    by_index = steps_of(filled, text)
    monkeypatch.setattr(tool_calls, "LONG_WALK", 10**9)
    assert 3 * by_index < steps_of(filled, text)


def test_a_text_that_is_frequent_is_met_on_the_walk(filled, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(tool_calls, "TextSearch", None)
    assert len(asking.list_tool_calls(filled, Request(args_contain="file-1", page_size=5)).rows) == 5


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
        page = asking.list_tool_calls(filled, Request(args_contain="needle", page_token=token))
        ids, token, pages = ids + [row.id for row in page.rows], page.next_page_token, pages + 1
    assert pages > 1
    assert ids == plain(filled, "needle")


def test_a_search_that_the_index_does_not_narrow_goes_back_to_the_walk(filled, monkeypatch):
    asked: list[int] = []
    candidates = text_search.TextSearch._candidates

    def noted(search: text_search.TextSearch, segment: Segment) -> BitMap:
        asked.extend(range(segment.zone, segment.zone + segment.zones))
        return candidates(search, segment)

    monkeypatch.setattr(text_search.TextSearch, "_candidates", noted)
    assert listed(filled, 100, args_contain="path", errors_only=True) == []
    assert asked == []
    write(
        filled, *[audit_row(args_summary="none", error="x", created_at_ms=BEGIN + 9 * HOUR_MS + n) for n in range(40)]
    )
    assert listed(filled, 100, args_contain="path", errors_only=True) == []
    # A zone, a segment of two and two of four: then it has tried enough.
    assert len(asked) == 11
    assert len(listed(filled, 1000, args_contain="path")) == 1000
    assert len(set(asked)) == 31


def test_rows_that_no_index_knows_are_walked_as_before(filled, monkeypatch):
    monkeypatch.setattr(text_search, "MAX_UNINDEXED", 0)
    monkeypatch.setattr(text_search.TextSearch, "_candidates", None)
    assert listed(filled, 100, args_contain="needle") == plain(filled, "needle")


def test_texts_without_trigrams_are_walked():
    assert text_trigrams("ab") == text_trigrams("a\0bcd") == text_trigrams("a\ufffeb\uffffc") == []
    assert text_trigrams("AbCabcÉ") == ["abc", "bca", "cab", "bcÉ"]


def test_a_page_that_begins_deep_finds_what_came_late(filled):
    late = audit_row(id="late", args_summary="path: NEEDLE", created_at_ms=BEGIN + 1)
    write(filled, late, *[call(number) for number in range(1000, 1100)])
    list(index_zones(filled))
    request = Request(args_contain="needle")
    request.page_token = encode_token((BEGIN + 100, ""), fingerprint_of(request))
    assert [row.id for row in asking.list_tool_calls(filled, request).rows] == ["late"]


def test_rows_that_came_late_do_not_hide_newer_ones_that_are_indexed(filled):
    late = [audit_row(id=name, args_summary="needle", created_at_ms=BEGIN + 5_000_000) for name in ("a", "b")]
    write(filled, *late)
    assert listed(filled, 1, args_contain="needle") == ["0907", "0607", "b", "a", "0307", "0007"]


def test_segments_that_are_merged_in_the_middle_of_a_search_do_not_hide_rows(connection, database, monkeypatch):
    write(connection, *[call(number) for number in range(321)])
    with monkeypatch.context() as patch:
        patch.setattr(text_segments, "SIZES", (1,))
        list(index_zones(connection))
    candidates = text_search.TextSearch._candidates

    def late(search: text_search.TextSearch, segment: Segment) -> BitMap:
        list(index_zones(connection))
        return candidates(search, segment)

    monkeypatch.setattr(text_search.TextSearch, "_candidates", late)
    reading = open_for_reading(database)
    assert listed(reading, 100, args_contain="needle") == ["0307", "0007"]
    assert connection.execute("SELECT max(zones) FROM args_index_segments").fetchall() == [(4,)]
    reading.close()


async def test_a_search_that_meets_a_damaged_entry_is_told_what_mends_it(filled, database):
    filled.execute("UPDATE args_index SET rows = zeroblob(8)")
    reader = Reader([open_for_reading(database)])
    with pytest.raises(Damaged, match="rebuild-texts makes again"):
        await reader.ask(asking.list_tool_calls, Request(args_contain="needle"))
    reader.close()
