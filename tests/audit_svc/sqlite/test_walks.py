"""Listings walk the indexes that were made for them, and no longer than their patience."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.query import filter_of, query_of
from audit_svc.sql.read import listing, queries, tool_calls, walks
from audit_svc.sqlite.read.database import SqliteDatabase
from tests.audit_svc.samples import NOW_MS, question
from tests.audit_svc.sqlite.listed import FILTERS, SESSION_FILTERS, Request


def plan(connection: apsw.Connection, sql: str, arguments: list[int | str | None]) -> str:
    return "; ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", arguments))


@pytest.mark.parametrize(
    ("index", "query"),
    [
        (
            "idx_tool_call_log_session",
            "SELECT * FROM tool_call_log WHERE session_id = 's1' AND created_at >= 5 ORDER BY created_at",
        ),
        (
            "idx_tool_call_log_tool",
            "SELECT * FROM tool_call_log WHERE engine = 'ollama' AND tool_name = 'bash' AND created_at >= 5 "
            "ORDER BY created_at",
        ),
        ("idx_tool_call_log_error", "SELECT error, count(*) FROM tool_call_log WHERE error IS NOT NULL GROUP BY error"),
        ("idx_tool_call_log_error", "SELECT * FROM tool_call_log WHERE error = 'broken'"),
    ],
)
def test_the_query_that_each_index_was_made_for_uses_it(filled, index, query):
    found = plan(filled, query, [])
    assert f"INDEX {index}" in found
    assert "TEMP B-TREE" not in found


@dataclass
class SlowRows:
    """A clock that goes on by what each row takes that a listing looks at."""

    ms_a_row: float
    now: float = 0.0
    windows: list[int] = field(default_factory=list)

    def use(self, monkeypatch: pytest.MonkeyPatch, other_way_seconds: float = 0.0) -> walks.OtherWay:
        """Another way of looking, which takes as long, and finds nothing."""
        begin = walks._window_begin

        def timed(*arguments: Any) -> int | None:
            self.windows.append(arguments[-1])
            self.now += arguments[-1] * self.ms_a_row / 1000
            return begin(*arguments)

        def in_vain(position: Any, _size: int, _give_up: float) -> Any:
            self.now += other_way_seconds
            return [], position

        monkeypatch.setattr(walks, "_window_begin", timed)
        monkeypatch.setattr(walks, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(walks, "FIRST_WINDOW", 5)
        monkeypatch.setattr(walks, "LEAST_WINDOW", 1)
        return in_vain


NOWHERE = question(Request, args_contain="nowhere")


@pytest.mark.parametrize("ms_a_row", [2, 4, 8, 16, 40])
def test_a_page_takes_no_longer_than_its_patience_whatever_a_row_takes(filled, monkeypatch, ms_a_row):
    database, clock = SqliteDatabase(filled), SlowRows(ms_a_row)
    clock.use(monkeypatch)
    chosen = tool_calls.plan_of(database, filter_of(NOWHERE))
    page = walks.list_rows(database, query_of(NOWHERE), chosen)
    assert (page.rows, page.next is None) == ([], False)
    assert sum(clock.windows) * ms_a_row / 1000 <= walks.PATIENCE_SECONDS + 2 * ms_a_row / 1000


def test_a_page_goes_on_for_a_while_after_another_way_that_was_in_vain(filled, monkeypatch):
    database, clock = SqliteDatabase(filled), SlowRows(4)
    monkeypatch.setattr(walks, "LONG_WALK", 1)
    other_way = clock.use(monkeypatch, other_way_seconds=0.3)
    chosen = tool_calls.plan_of(database, filter_of(NOWHERE))
    page = walks.list_rows(database, query_of(NOWHERE), chosen, other_way)
    assert page.next is not None
    assert 0.05 < sum(clock.windows[1:]) * 0.004 < walks.IN_VAIN_SECONDS + 0.01


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_every_listing_walks_indexes_in_its_own_order(filled, patient, filters):
    asked = filter_of(question(Request, **filters))
    chosen = tool_calls.plan_of(SqliteDatabase(filled), asked)
    after = listing.after_key((NOW_MS, "x"))
    for conditions in ([], after, [*listing.time_range(asked), *after]):
        found = plan(filled, *chosen.statement(conditions, 101))
        assert "USING INDEX idx_tool_call_log_" in found
        assert "SCAN tool_call_log;" not in found
        assert "AUTOMATIC" not in found
        # Rows of one millisecond are sorted among themselves; the order by time is the index's, but for what a few
        # sessions have.
        if not (chosen.is_short and "labels" in filters and "session_id" not in filters):
            assert "USE TEMP B-TREE FOR ORDER BY" not in found


@pytest.mark.parametrize("filters", SESSION_FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_every_listing_of_sessions_walks_an_index(filled, patient, filters):
    found = plan(
        filled,
        *queries.sessions_statement(
            SqliteDatabase(filled), query_of(question(questions_pb2.ListSessionRecordsRequest, **filters))
        ),
    )
    if "id" in filters or "ids" in filters:
        assert "USING INDEX sqlite_autoindex_sessions_1 (id=?" in found
        return
    assert "SEARCH sessions USING INDEX" in found or "SCAN sessions USING INDEX idx_sessions_created" in found
    assert "AUTOMATIC" not in found
    assert ("USE TEMP B-TREE FOR ORDER BY" in found) == (patient == "few" and "labels" in filters)
