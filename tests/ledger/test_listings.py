"""Listings, timelines and exports: every row that a filter lets through, once, in order, whatever the page."""

import itertools
import random
from collections.abc import Iterable
from typing import Any, cast

import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import NotFound
from audit_svc.ledger.pages import call_key, query_key, request_key
from audit_svc.ledger.query import filter_of
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, row_of, session_row
from tests.ledger.asking import all_pages, entry_row, record, timeline

CHANCE = random.Random(7)
FAILED, SUCCEEDED = common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_SUCCEEDED
CALLS = [
    audit_row(
        session_id=f"s{n % 5}",
        engine=("ollama", "openai")[n % 2],
        tool_name=("read", "bash", "webfetch")[n % 3],
        model=("small", "large")[n // 60],
        outcome=(FAILED, SUCCEEDED, SUCCEEDED, common_pb2.OUTCOME_TIMED_OUT)[n % 4],
        error="broken" if n % 4 == 0 else None,
        shadow=n % 7 == 0,
        args_summary=f'{{"path":"Notes_{n % 9}%.txt"}}',
        # Several rows of one millisecond, in no order of their ids.
        created_at_ms=NOW_MS - CHANCE.randrange(40),
    )
    for n in range(120)
]
COSTS = [
    cost_row(
        session_id=f"s{n % 3}",
        turn_id=f"t{n % 6}",
        engine=("openai", "anthropic")[n % 2],
        model=("small", "large")[n // 20],
        error="engine_rejected, HTTP 400" if n % 4 == 0 else None,
        shadow=n % 7 == 0,
        principal=("ada", "bob")[n % 2],
        agent=common_pb2.Software(name="reviewer", version=str(n % 2)),
        source=(common_pb2.SOURCE_OWN_LOOP, common_pb2.SOURCE_CLIENT_LIBRARY)[n % 2],
        created_at_ms=NOW_MS - CHANCE.randrange(40),
    )
    for n in range(40)
]
SESSIONS = [
    session_row(
        id=f"s{n}",
        engine=("ollama", "openai")[n % 2],
        model=("small", "large")[n // 10],
        status=common_pb2.SESSION_STATUS_RUNNING if n % 5 == 0 else common_pb2.SESSION_STATUS_IDLE,
        created_at_ms=NOW_MS - n // 3,
        updated_at_ms=NOW_MS + n,
        labels={"n": str(n), "half": str(n // 10)},
    )
    for n in range(20)
]
CALL_FILTERS: dict[str, Any] = {
    "session_id": "s1",
    "engine": "ollama",
    "tool_name": "bash",
    "model": "small",
    "has_error": True,
    "outcomes": [FAILED, common_pb2.OUTCOME_TIMED_OUT],
    "labels": {"n": "1", "half": "0"},
    "args_contain": "notes_1%",
    "created_from_ms": NOW_MS - 30,
    "created_before_ms": NOW_MS - 5,
}
OTHER_CALL_FILTERS: list[dict[str, Any]] = [
    {"has_error": False},
    {"has_error": False, "engine": "ollama"},
    {"shadow": True},
    {"shadow": False, "session_id": "s1"},
    {"clock_suspect": True},
    {"clock_suspect": False, "tool_name": "bash"},
    {"id": CALLS[0].id},
    {"id": CALLS[1].id, "tool_name": CALLS[1].tool_name, "session_id": "s1"},
    {"id": CALLS[1].id, "session_id": "s2"},
    {"id": "nothing"},
]
REQUEST_FILTERS: dict[str, Any] = {
    "session_id": "s1",
    "turn_id": "t4",
    "engine": "openai",
    "model": "small",
    "has_error": True,
    "principal": "ada",
    "agent": common_pb2.Software(name="reviewer", version="0"),
    "labels": {"n": "1", "half": "0"},
    "created_from_ms": NOW_MS - 30,
    "created_before_ms": NOW_MS - 5,
}
OTHER_REQUEST_FILTERS: list[dict[str, Any]] = [
    {"has_error": False},
    {"has_error": True, "engine": "anthropic"},
    {"shadow": True},
    {"shadow": False, "session_id": "s1"},
    {"sources": [common_pb2.SOURCE_CLIENT_LIBRARY]},
    {"clock_suspect": True},
    {"clock_suspect": False, "model": "large"},
    {"recorded_by": "nobody"},
    {"id": COSTS[0].id},
    {"id": COSTS[1].id, "model": "large"},
    {"id": "nothing"},
]
SESSION_FILTERS: dict[str, Any] = {
    "engine": "openai",
    "model": "large",
    "statuses": [common_pb2.SESSION_STATUS_RUNNING],
    "labels": {"half": "1"},
    "created_from_ms": NOW_MS - 5,
    "created_before_ms": NOW_MS - 2,
}
OTHER_SESSION_FILTERS: list[dict[str, Any]] = [
    {"id": "s4"},
    {"id": "s5", "statuses": [common_pb2.SESSION_STATUS_RUNNING], "labels": {"half": "0"}},
    {"id": "nothing"},
    {"ids": ["s1", "s4", "nothing", "s4", "s0"]},
    {"ids": ["s1", "s4"], "model": "large", "statuses": [common_pb2.SESSION_STATUS_RUNNING]},
    {"updated_from_ms": NOW_MS + 3, "updated_before_ms": NOW_MS + 12},
    {"updated_from_ms": NOW_MS + 3, "statuses": [common_pb2.SESSION_STATUS_RUNNING]},
    {"statuses": [common_pb2.SESSION_STATUS_RUNNING, common_pb2.SESSION_STATUS_IDLE]},
    {"statuses": [common_pb2.SESSION_STATUS_FAILED, common_pb2.SESSION_STATUS_RUNNING], "engine": "openai"},
    {"statuses": [common_pb2.SESSION_STATUS_IDLE, common_pb2.SESSION_STATUS_RUNNING], "model": "large"},
    {"statuses": [common_pb2.SESSION_STATUS_FAILED]},
]


def combinations(filters: dict[str, Any], most: int = 2) -> list[dict[str, Any]]:
    sizes = [*range(most + 1), len(filters)]
    return [dict(chosen) for size in sizes for chosen in itertools.combinations(filters.items(), size)]


def matches(row: Any, filters: dict[str, Any], labels: dict[str, str]) -> bool:
    special = {
        "has_error",
        "ids",
        "outcomes",
        "statuses",
        "clock_suspect",
        "labels",
        "sources",
        "recorded_by",
        "args_contain",
        "created_from_ms",
        "created_before_ms",
        "updated_from_ms",
        "updated_before_ms",
    }
    return (
        all(getattr(row, name) == value for name, value in filters.items() if name not in special)
        and ("has_error" not in filters or row.HasField("error") == filters["has_error"])
        and ("ids" not in filters or row.id in filters["ids"])
        and ("outcomes" not in filters or row.outcome in filters["outcomes"])
        and ("statuses" not in filters or row.status in filters["statuses"])
        and ("sources" not in filters or row.source in filters["sources"])
        and not (filters.get("clock_suspect") or filters.get("recorded_by"))
        and filters.get("labels", {}).items() <= labels.items()
        and ("args_contain" not in filters or filters["args_contain"].lower() in row.args_summary.lower())
        and filters.get("created_from_ms", 0) <= row.created_at_ms < filters.get("created_before_ms", 2**62)
        and filters.get("updated_from_ms", 0) <= getattr(row, "updated_at_ms", 0)
        and getattr(row, "updated_at_ms", 0) < filters.get("updated_before_ms", 2**62)
    )


PLACES: dict[str, int] = {
    row.id: place for rows in (CALLS, COSTS, SESSIONS) for place, row in enumerate(cast("list[Any]", rows))
}
"""In the order of their commits."""


def by_time(row: Any) -> tuple[int, int, int]:
    return row.created_at_ms, isinstance(row, audit_pb2.CostRow), PLACES[row.id]


def newest_first(rows: Iterable[Any]) -> list[Any]:
    return sorted(rows, key=by_time, reverse=True)


@pytest.fixture
async def filled(ledger):
    response = await record(ledger, tool_calls=CALLS, model_requests=COSTS, sessions=SESSIONS)
    assert response.stored == len(CALLS) + len(COSTS) + len(SESSIONS)
    return ledger


async def test_pages_hold_every_call_that_matches_once_the_newest_first(filled):
    for filters in [*combinations(CALL_FILTERS), *OTHER_CALL_FILTERS]:
        found = await all_pages(
            filled.list_tool_calls, question(questions_pb2.ListToolCallsRequest, **filters, page_size=7)
        )
        wanted = [row for row in CALLS if matches(row, filters, {"n": row.session_id[1:], "half": "0"})]
        assert found == newest_first(wanted), filters


async def test_pages_hold_every_model_request_that_matches_once_the_newest_first(filled):
    for filters in [*combinations(REQUEST_FILTERS), *OTHER_REQUEST_FILTERS]:
        found = await all_pages(
            filled.list_model_requests, question(questions_pb2.ListModelRequestsRequest, **filters, page_size=7)
        )
        wanted = [row for row in COSTS if matches(row, filters, {"n": row.session_id[1:], "half": "0"})]
        assert found == newest_first(wanted), filters


async def test_pages_hold_every_session_that_matches_once_the_newest_first(filled):
    for filters in [*combinations(SESSION_FILTERS), *OTHER_SESSION_FILTERS]:
        found = await all_pages(
            filled.list_sessions, question(questions_pb2.ListSessionRecordsRequest, **filters, page_size=3)
        )
        assert found == newest_first(row for row in SESSIONS if matches(row, filters, dict(row.labels))), filters


async def test_a_page_ends_before_it_is_larger_than_clients_take_and_loses_nothing(ledger):
    rows = [audit_row(args_summary="x" * 4096, error="y" * 2048) for _ in range(1000)]
    await record(ledger, tool_calls=rows)
    found = await all_pages(ledger.list_tool_calls, questions_pb2.ListToolCallsRequest(page_size=1000))
    assert found == rows[::-1]


async def test_an_export_holds_what_was_there_when_it_began_the_oldest_first(filled):
    last = await filled.last_position()
    await record(filled, tool_calls=[audit_row(created_at_ms=NOW_MS - 20), audit_row()])
    for filters in [*combinations(CALL_FILTERS, most=1), *OTHER_CALL_FILTERS]:
        wanted, found, after = filter_of(question(questions_pb2.ListToolCallsRequest, **filters)), list[Any](), None
        while rows := await filled.export_tool_calls(wanted, after, last, 9):
            found += rows
            after = call_key(rows[-1])
        expected = [row for row in CALLS if matches(row, filters, {"n": row.session_id[1:], "half": "0"})]
        assert list(map(row_of, found)) == sorted(expected, key=by_time), filters


async def test_an_export_of_model_requests_holds_what_was_there_when_it_began_the_oldest_first(filled):
    last = await filled.last_request_position()
    await record(filled, model_requests=[cost_row(created_at_ms=NOW_MS - 20), cost_row()], tool_calls=[audit_row()])
    for filters in [*combinations(REQUEST_FILTERS, most=1), *OTHER_REQUEST_FILTERS]:
        asked = question(questions_pb2.ExportModelRequestsRequest, **filters)
        wanted, found, after = filter_of(asked), list[Any](), None
        while rows := await filled.export_model_requests(wanted, after, last, 9):
            found += rows
            after = request_key(rows[-1])
        expected = [row for row in COSTS if matches(row, filters, {"n": row.session_id[1:], "half": "0"})]
        assert list(map(row_of, found)) == sorted(expected, key=by_time), filters


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_timeline_holds_calls_and_requests_in_the_order_of_their_times(filled, size):
    session, entries = await timeline(filled, "s1", size)
    assert session.session == SESSIONS[1]
    both: list[Any] = [*CALLS, *COSTS]
    rows = [row for row in both if row.session_id == "s1"]
    assert list(map(entry_row, entries)) == sorted(rows, key=by_time)


async def test_a_session_that_has_no_row_is_not_found(filled):
    with pytest.raises(NotFound):
        await timeline(filled, "s99")


async def test_the_log_of_queries_is_listed_by_caller_method_and_time(ledger):
    rows = [
        administration_pb2.QueryRow(
            caller=("ada", "bob")[n % 2],
            method=("ListToolCalls", "GetSessionRecord", "Backup")[n % 3],
            filters="{}",
            rows=n,
            duration_ms=n,
            status="OK",
            created_at_ms=NOW_MS + n // 4,
        )
        for n in range(30)
    ]
    await ledger.log_queries(rows)
    asked: list[dict[str, Any]] = [
        {},
        {"caller": "ada"},
        {"method": "Backup"},
        {"caller": "bob", "created_from_ms": NOW_MS + 3},
    ]
    for filters in asked:
        request = administration_pb2.ListQueriesRequest(**filters, page_size=4)
        found = await all_pages(ledger.list_queries, request, (int, int))
        assert found == sorted(found, key=query_key, reverse=True)
        assert len({row.id for row in found}) == len(found)
        wanted = {row.rows for row in rows if matches(row, filters, {})}
        assert {row.rows for row in found} == wanted
        assert len(found) == len(wanted)


async def test_an_empty_ledger_answers_with_nothing(ledger):
    assert await all_pages(ledger.list_tool_calls, questions_pb2.ListToolCallsRequest()) == []
    assert await all_pages(ledger.list_model_requests, questions_pb2.ListModelRequestsRequest()) == []
    assert await all_pages(ledger.list_sessions, questions_pb2.ListSessionRecordsRequest()) == []
    assert await all_pages(ledger.list_queries, administration_pb2.ListQueriesRequest(), (int, int)) == []
    assert await ledger.export_tool_calls(filter_of(questions_pb2.ListToolCallsRequest()), None, 0, 9) == []
