"""Listings: what they filter, and how they page."""

from functools import partial
from typing import Any

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import InvalidRequest, NotFound
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.pages import call_key
from audit_svc.ledger.query import filter_of, query_of
from audit_svc.sql.read import tool_calls
from audit_svc.sqlite.read.database import SqliteDatabase
from service_kit.paging import InvalidPage
from tests.audit_svc import asking
from tests.audit_svc.asking import summarize_usage
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, question, record_request, row_of, session_row
from tests.audit_svc.sqlite.listed import FILTERS, ROWS, SESSION_FILTERS, SESSIONS, Request, fill
from tests.ledger.asking import entry_row
from tests.support.pages import pages


def matches(row: audit_pb2.AuditRow, filters: dict[str, Any]) -> bool:
    texts = ("session_id", "engine", "tool_name", "model")
    labels = {"n": row.session_id[1:], "half": "0"}
    return (
        all(filters.get(name, getattr(row, name)) == getattr(row, name) for name in texts)
        and row.HasField("error") == filters.get("has_error", row.HasField("error"))
        and row.shadow == filters.get("shadow", row.shadow)
        and not filters.get("clock_suspect")
        and row.outcome in filters.get("outcomes", [row.outcome])
        and filters.get("labels", {}).items() <= labels.items()
        and filters.get("args_contain", "").lower() in row.args_summary.lower()
        and filters.get("created_from_ms", 0) <= row.created_at_ms < filters.get("created_before_ms", 2**62)
    )


def session_matches(row: audit_pb2.SessionRow, filters: dict[str, Any]) -> bool:
    texts = ("id", "engine", "model")
    return (
        all(filters.get(name, getattr(row, name)) == getattr(row, name) for name in texts)
        and row.id in filters.get("ids", [row.id])
        and row.status in filters.get("statuses", [row.status])
        and filters.get("labels", {}).items() <= dict(row.labels).items()
        and filters.get("created_from_ms", 0) <= row.created_at_ms < filters.get("created_before_ms", 2**62)
    )


def newest_first(rows: list[Any]) -> list[Any]:
    """Rows that stand in the order of their commits."""
    return sorted(rows, key=lambda row: row.created_at_ms)[::-1]


@pytest.mark.long
@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_pages_hold_every_matching_row_once_the_newest_first(filled, patient, filters):
    asked = question(Request, **filters, page_size=7)
    listed = pages(partial(asking.list_tool_calls, filled), asked)
    found = [row_of(one) for page in listed for one in page.tool_calls]
    expected = [row for row in ROWS if matches(row, filters)]
    assert found == newest_first(expected)


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_an_export_holds_every_matching_row_once_the_oldest_first(filled, filters):
    found: list[audit_pb2.AuditRow] = []
    after = None
    while rows := tool_calls.export_tool_calls(
        SqliteDatabase(filled), filter_of(question(Request, **filters)), after, 190, 9
    ):
        found.extend(map(row_of, rows))
        after = call_key(rows[-1])
    expected = [row for row in ROWS[:190] if matches(row, filters)]
    assert found == sorted(expected, key=lambda row: row.created_at_ms)


@pytest.mark.parametrize("filters", SESSION_FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_pages_of_sessions_hold_every_matching_one_with_its_labels(filled, patient, filters):
    asked = question(questions_pb2.ListSessionRecordsRequest, **filters, page_size=4)
    listed = pages(partial(asking.list_sessions, filled), asked)
    found = [row_of(one) for page in listed for one in page.sessions]
    expected = [session for session in SESSIONS if session_matches(session, filters)]
    assert found == newest_first(expected)


def test_a_timeline_has_requests_and_calls_in_their_order(writer, reading):
    calls = [audit_row(session_id="s", created_at_ms=NOW_MS - n) for n in range(0, 20, 2)]
    requests = [cost_row(session_id="s", created_at_ms=NOW_MS - n) for n in range(0, 20, 3)]
    sent = record_request(tool_calls=calls, model_requests=requests, sessions=[session_row(id="s")])
    writer.record(read_batch(sent, NOW_MS)).result()
    found: list[audit_pb2.AuditRow | audit_pb2.CostRow] = []
    asked = questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="s"), page_size=3)
    for page in pages(partial(asking.get_session, reading), asked):
        assert row_of(page.session) == session_row(id="s")
        found.extend(map(entry_row, page.entries))
    expected: list[audit_pb2.AuditRow | audit_pb2.CostRow] = [*calls, *requests]
    assert found == sorted(expected, key=lambda row: row.created_at_ms)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"created_from_ms": 5, "created_before_ms": 5}, "no time is in the range"),
        ({"created_from_ms": -1}, "not negative"),
        ({"outcomes": [99]}, "does not know"),
        ({"labels": {str(n): "x" for n in range(33)}}, "more than 32"),
        ({"args_contain": "x" * 4097}, "longer than 4096"),
    ],
)
def test_filters_that_no_row_can_meet_are_refused(filled, filters, said):
    with pytest.raises(InvalidRequest, match=said):
        asking.list_tool_calls(filled, question(Request, **filters))


def test_more_ids_than_one_question_may_name_are_refused():
    wanted = question(questions_pb2.ListSessionRecordsRequest, ids=[str(number) for number in range(1000)])
    assert len(query_of(wanted).filter.any_of["id"]) == 1000
    wanted.filter.ids.append("one more")
    with pytest.raises(InvalidRequest, match="ids has more than 1000 entries"):
        query_of(wanted)


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection, outcomes: asking.list_tool_calls(connection, question(Request, outcomes=outcomes)),
        lambda connection, outcomes: tool_calls.tool_calls_after(
            SqliteDatabase(connection), filter_of(question(questions_pb2.TailToolCallsRequest, outcomes=outcomes)), 0
        ),
        lambda connection, outcomes: summarize_usage(
            connection, question(questions_pb2.SummarizeUsageRequest, outcomes=outcomes)
        ),
    ],
    ids=["list", "tail", "usage"],
)
def test_outcomes_may_be_said_often_and_must_be_known(filled, ask):
    ask(filled, [common_pb2.OUTCOME_FAILED] * 100_000)
    with pytest.raises(InvalidRequest, match="does not know"):
        ask(filled, [common_pb2.OUTCOME_FAILED, 99])


def test_rows_that_come_while_one_pages_change_nothing_of_what_is_older(writer, reading):
    fill(writer)
    first = asking.list_tool_calls(reading, Request(page_size=50))
    writer.record(batch(*[audit_row(created_at_ms=NOW_MS + 1) for _ in range(30)])).result()
    second = asking.list_tool_calls(reading, Request(page_size=1000, page_token=first.next_page_token))
    assert {row_of(one).id for one in [*first.tool_calls, *second.tool_calls]} == {row.id for row in ROWS}
    assert len(second.tool_calls) == len(ROWS) - 50


def test_a_page_ends_before_it_is_too_large_for_a_client_of_any_language(writer, reading):
    large = [audit_row(args_summary="x" * 4096, error="e" * 2048) for _ in range(900)]
    writer.record(batch(*large)).result()
    first = asking.list_tool_calls(reading, Request(page_size=1000))
    assert first.ByteSize() < 4 * 2**20
    second = asking.list_tool_calls(reading, Request(page_size=1000, page_token=first.next_page_token))
    assert len(first.tool_calls) + len(second.tool_calls) == 900


def test_a_page_token_is_good_for_its_own_filters_and_method_alone(filled):
    token = asking.list_tool_calls(filled, question(Request, page_size=1, engine="ollama")).next_page_token
    for asked in (Request(page_token=token), question(Request, engine="openai", page_token=token)):
        with pytest.raises(InvalidPage):
            asking.list_tool_calls(filled, asked)
    of_all = asking.list_tool_calls(filled, Request(page_size=1)).next_page_token
    with pytest.raises(InvalidPage):
        asking.list_sessions(filled, questions_pb2.ListSessionRecordsRequest(page_token=of_all))
    other_size = question(Request, page_size=9, engine="ollama", page_token=token)
    assert len(asking.list_tool_calls(filled, other_size).tool_calls) == 9


def test_a_session_that_is_not_there_is_not_found(filled):
    there = questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="s3"))
    assert row_of(asking.get_session(filled, there).session) == SESSIONS[3]
    with pytest.raises(NotFound):
        asking.get_session(filled, questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="s999")))


def test_a_reading_connection_cannot_write(filled):
    with pytest.raises(apsw.ReadOnlyError):
        filled.execute("DELETE FROM tool_call_log")
