"""Listings: what they filter, how they page, and that they use the indexes that were made for them."""

import itertools
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import InvalidRequest, NotFound
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.pages import call_key
from audit_svc.ledger.query import filter_of, query_of
from audit_svc.sql.read import listing, queries, tool_calls, walks
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.read.database import SqliteDatabase
from audit_svc.sqlite.write.writer import Writer
from service_kit.paging import InvalidPage
from tests.audit_svc import asking
from tests.audit_svc.asking import summarize_usage
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, question, record_request, row_of, session_row
from tests.ledger.asking import entry_row

Request = questions_pb2.ListToolCallsRequest
RANDOM = random.Random(7)
ROWS = [
    audit_row(
        session_id=f"s{n % 5}",
        engine=("ollama", "openai")[n % 2],
        tool_name=("read", "bash", "webfetch")[n % 3],
        model=("small", "large")[n // 100],
        outcome=common_pb2.OUTCOME_FAILED if n % 4 == 0 else common_pb2.OUTCOME_SUCCEEDED,
        error="broken" if n % 4 == 0 else None,
        shadow=n % 7 == 0,
        args_summary=f'{{"path":"Notes_{n % 9}%.txt"}}',
        # Several rows of one millisecond, in no order of their ids.
        created_at_ms=NOW_MS - RANDOM.randrange(40),
    )
    for n in range(200)
]
SESSIONS = [
    session_row(
        id=f"s{n}",
        engine=("ollama", "openai")[n % 2],
        model=("small", "large")[n // 25],
        status=common_pb2.SESSION_STATUS_RUNNING if n % 5 == 0 else common_pb2.SESSION_STATUS_IDLE,
        created_at_ms=NOW_MS - n // 3,
        labels={"n": str(n), "half": str(n // 25)},
    )
    for n in range(50)
]


def fill(writer: Writer) -> None:
    writer.record(batch(*ROWS)).result()
    writer.record(read_batch(record_request(sessions=SESSIONS), NOW_MS)).result()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    """A ledger of ROWS and SESSIONS that no test changes."""
    database = tmp_path_factory.mktemp("filled") / "audit.db"
    connection = open_for_writing(database)
    migrate.up(connection, migrate.load_migrations())
    with closing(Writer(connection, 50_000)) as writer:
        fill(writer)
    reading = open_for_reading(database)
    yield reading
    reading.close()


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


SETTINGS: dict[str, Any] = {
    "session_id": "s1",
    "engine": "ollama",
    "tool_name": "bash",
    "model": "small",
    "has_error": True,
    "outcomes": [common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_TIMED_OUT],
    "labels": {"n": "1"},
    "args_contain": "notes_1%",
    "created_from_ms": NOW_MS - 30,
    "created_before_ms": NOW_MS - 5,
}
FILTERS = [
    dict(chosen) for size in (0, 1, 2, len(SETTINGS)) for chosen in itertools.combinations(SETTINGS.items(), size)
]
FILTERS += [{"outcomes": [common_pb2.OUTCOME_SUCCEEDED]}, {"outcomes": [0]}, {"labels": {"n": "1", "half": "0"}}]
FILTERS += [
    {"has_error": False},
    {"shadow": True},
    {"shadow": False},
    {"clock_suspect": True},
    {"clock_suspect": False},
]
FILTERS += [{"session_id": "s1", "labels": {"n": "2"}}, {"tool_name": "nothing"}, {"args_contain": "_1%.TXT"}]
SESSION_SETTINGS: dict[str, Any] = {
    "engine": "openai",
    "model": "large",
    "statuses": [common_pb2.SESSION_STATUS_RUNNING],
    "labels": {"half": "1"},
    "created_from_ms": NOW_MS - 15,
    "created_before_ms": NOW_MS - 2,
}
SESSION_FILTERS = [
    dict(chosen)
    for size in range(len(SESSION_SETTINGS) + 1)
    for chosen in itertools.combinations(SESSION_SETTINGS.items(), size)
]
SEVERAL = [common_pb2.SESSION_STATUS_IDLE, common_pb2.SESSION_STATUS_RUNNING]
SESSION_FILTERS += [{"statuses": SEVERAL}, {"statuses": SEVERAL, "model": "large"}, {"statuses": [0]}]
SESSION_FILTERS += [{"id": "s7"}, {"id": "s5", "statuses": SEVERAL}]
IDS = ["s7", "s3", "s7", "s1", "none"]
SESSION_FILTERS += [{"ids": IDS}, {"ids": IDS, "id": "s3"}, {"ids": IDS, "statuses": SEVERAL, "model": "large"}]
SESSION_FILTERS += [{"statuses": SEVERAL, "labels": {"half": "1"}, "created_from_ms": NOW_MS - 15}]


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


@pytest.fixture(params=["few", "many"])
def patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With many sessions of a label, and windows and patience that end soon, what is rare among millions is tried."""
    if request.param == "many":
        monkeypatch.setattr(listing, "FEW_SESSIONS", 0)
        monkeypatch.setattr(walks, "MAX_PAIRS", 1)
        monkeypatch.setattr(walks, "FIRST_WINDOW", 3)
        monkeypatch.setattr(walks, "LAST_WINDOW", 10)
        monkeypatch.setattr(walks, "PATIENCE_SECONDS", 0.0)
    return str(request.param)


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


def newest_first(rows: list[Any]) -> list[Any]:
    """Rows that stand in the order of their commits."""
    return sorted(rows, key=lambda row: row.created_at_ms)[::-1]


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_pages_hold_every_matching_row_once_the_newest_first(filled, patient, filters):
    found: list[audit_pb2.AuditRow] = []
    token = ""
    while True:
        page = asking.list_tool_calls(filled, question(Request, **filters, page_size=7, page_token=token))
        assert len(page.tool_calls) <= 7
        found.extend(map(row_of, page.tool_calls))
        token = page.next_page_token
        if not token:
            break
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
    found: list[audit_pb2.SessionRow] = []
    token = ""
    while True:
        asked = question(questions_pb2.ListSessionRecordsRequest, **filters, page_size=4, page_token=token)
        page = asking.list_sessions(filled, asked)
        found.extend(map(row_of, page.sessions))
        token = page.next_page_token
        if not token:
            break
    expected = [session for session in SESSIONS if session_matches(session, filters)]
    assert found == newest_first(expected)


def test_a_timeline_has_requests_and_calls_in_their_order(writer, reading):
    calls = [audit_row(session_id="s", created_at_ms=NOW_MS - n) for n in range(0, 20, 2)]
    requests = [cost_row(session_id="s", created_at_ms=NOW_MS - n) for n in range(0, 20, 3)]
    sent = record_request(tool_calls=calls, model_requests=requests, sessions=[session_row(id="s")])
    writer.record(read_batch(sent, NOW_MS)).result()
    found: list[audit_pb2.AuditRow | audit_pb2.CostRow] = []
    token = ""
    while True:
        asked = questions_pb2.GetSessionRecordRequest(
            session=questions_pb2.RowKey(id="s"), page_size=3, page_token=token
        )
        page = asking.get_session(reading, asked)
        assert row_of(page.session) == session_row(id="s")
        found.extend(map(entry_row, page.entries))
        token = page.next_page_token
        if not token:
            break
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
