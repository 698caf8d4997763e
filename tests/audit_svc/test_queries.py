"""Listings: what they filter, how they page, and that they use the indexes that were made for them."""

import itertools
import random

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import NotFound
from audit_svc.store import queries
from audit_svc.store.rows import read_batch
from audit_svc.store.writer import Writer
from service_kit.paging import InvalidPage, encode_token
from tests.audit_svc.samples import NOW_MS, audit_row, batch, session_row

Request = audit_pb2.ListToolCallsRequest
RANDOM = random.Random(7)
ROWS = [
    audit_row(
        session_id=f"s{n % 5}",
        engine=("ollama", "openai")[n % 2],
        tool_name=("read", "bash", "webfetch")[n % 3],
        error="broken" if n % 4 == 0 else None,
        # Several rows of one millisecond, in no order of their ids.
        created_at_ms=NOW_MS - RANDOM.randrange(40),
    )
    for n in range(200)
]
SESSIONS = [
    session_row(id=f"s{n}", engine=("ollama", "openai")[n % 2], created_at_ms=NOW_MS - n // 3, labels={"n": str(n)})
    for n in range(50)
]


@pytest.fixture
def filled(writer: Writer, reading: apsw.Connection) -> apsw.Connection:
    writer.record(batch(*ROWS)).result()
    writer.record(read_batch(audit_pb2.RecordRequest(sessions=SESSIONS), NOW_MS)).result()
    return reading


def plan(connection: apsw.Connection, sql: str, arguments: list[int | str]) -> str:
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
def test_r15_the_query_that_each_index_was_made_for_uses_it(filled, index, query):
    found = plan(filled, query, [])
    assert f"INDEX {index}" in found
    assert "TEMP B-TREE" not in found


SETTINGS = {
    "session_id": "s1",
    "engine": "ollama",
    "tool_name": "bash",
    "errors_only": True,
    "created_from_ms": NOW_MS - 30,
    "created_before_ms": NOW_MS - 5,
}
FILTERS = [
    dict(chosen) for size in range(len(SETTINGS) + 1) for chosen in itertools.combinations(SETTINGS.items(), size)
]


def matches(row: audit_pb2.AuditRow, filters: dict[str, object]) -> bool:
    return (
        filters.get("session_id", row.session_id) == row.session_id
        and filters.get("engine", row.engine) == row.engine
        and filters.get("tool_name", row.tool_name) == row.tool_name
        and (not filters.get("errors_only") or row.HasField("error"))
        and int(str(filters.get("created_from_ms", 0))) <= row.created_at_ms
        and row.created_at_ms < int(str(filters.get("created_before_ms", 2**62)))
    )


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_r15_every_listing_walks_an_index_in_its_own_order(filled, filters):
    listing = Request(**filters)
    after_a_page = Request(**filters, page_token=encode_token((NOW_MS, "x"), queries._filters(listing)))
    for asked in (listing, after_a_page):
        found = plan(filled, *queries.tool_calls_query(asked))
        assert "USING INDEX idx_tool_call_log_" in found
        # Rows of one millisecond are sorted among themselves; the order by time is the index's.
        assert "USE TEMP B-TREE FOR ORDER BY" not in found
        assert found.endswith("USE TEMP B-TREE FOR LAST TERM OF ORDER BY")


@pytest.mark.parametrize("engine", ["", "ollama"])
def test_r15_every_listing_of_sessions_walks_an_index_in_its_own_order(filled, engine):
    found = plan(filled, *queries.sessions_query(audit_pb2.ListSessionsRequest(engine=engine)))
    assert "USING INDEX idx_sessions_" in found
    assert "USE TEMP B-TREE FOR ORDER BY" not in found


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_pages_hold_every_matching_row_once_the_newest_first(filled, filters):
    found: list[audit_pb2.AuditRow] = []
    token = ""
    while True:
        page = queries.list_tool_calls(filled, Request(**filters, page_size=7, page_token=token))
        assert len(page.rows) <= 7
        found.extend(page.rows)
        token = page.next_page_token
        if not token:
            break
    expected = [row for row in ROWS if matches(row, filters)]
    assert found == sorted(expected, key=lambda row: (row.created_at_ms, row.id), reverse=True)


def test_rows_that_come_while_one_pages_change_nothing_of_what_is_older(writer, filled):
    first = queries.list_tool_calls(filled, Request(page_size=50))
    writer.record(batch(*[audit_row(created_at_ms=NOW_MS + 1) for _ in range(30)])).result()
    second = queries.list_tool_calls(filled, Request(page_size=1000, page_token=first.next_page_token))
    assert {row.id for row in [*first.rows, *second.rows]} == {row.id for row in ROWS}
    assert len(second.rows) == len(ROWS) - 50


def test_a_page_ends_before_it_is_too_large_for_a_client_of_any_language(writer, reading):
    large = [audit_row(args_summary="x" * 4096, error="e" * 2048) for _ in range(900)]
    writer.record(batch(*large)).result()
    first = queries.list_tool_calls(reading, Request(page_size=1000))
    assert first.ByteSize() < 4 * 2**20
    second = queries.list_tool_calls(reading, Request(page_size=1000, page_token=first.next_page_token))
    assert len(first.rows) + len(second.rows) == 900


def test_sessions_are_paged_the_newest_first_with_their_labels(filled):
    found: list[audit_pb2.SessionRow] = []
    token = ""
    while True:
        asked = audit_pb2.ListSessionsRequest(engine="openai", page_size=4, page_token=token)
        page = queries.list_sessions(filled, asked)
        found.extend(page.sessions)
        token = page.next_page_token
        if not token:
            break
    expected = [session for session in SESSIONS if session.engine == "openai"]
    assert found == sorted(expected, key=lambda row: (row.created_at_ms, row.id), reverse=True)


def test_a_page_token_is_good_for_its_own_filters_and_method_alone(filled):
    token = queries.list_tool_calls(filled, Request(page_size=1, engine="ollama")).next_page_token
    for asked in (Request(page_token=token), Request(engine="openai", page_token=token)):
        with pytest.raises(InvalidPage):
            queries.list_tool_calls(filled, asked)
    of_all = queries.list_tool_calls(filled, Request(page_size=1)).next_page_token
    with pytest.raises(InvalidPage):
        queries.list_sessions(filled, audit_pb2.ListSessionsRequest(page_token=of_all))
    other_size = Request(page_size=9, engine="ollama", page_token=token)
    assert len(queries.list_tool_calls(filled, other_size).rows) == 9


def test_a_session_that_is_not_there_is_not_found(filled):
    assert queries.get_session(filled, "s3") == SESSIONS[3]
    with pytest.raises(NotFound):
        queries.get_session(filled, "s999")


def test_a_reading_connection_cannot_write(filled):
    with pytest.raises(apsw.ReadOnlyError):
        filled.execute("DELETE FROM tool_call_log")
