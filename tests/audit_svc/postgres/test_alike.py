"""Both stores answer alike, row for row and page for page: random histories, random questions."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import administration_pb2, audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import AuditError
from audit_svc.ledger.batch import Batch, query_batch, read_batch
from audit_svc.ledger.pages import call_key, request_key
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.ledger.usage import MAX_SUMMED, Usage
from audit_svc.postgres.open.connection import Connection
from audit_svc.postgres.read.database import PostgresDatabase
from audit_svc.postgres.text import trigrams
from audit_svc.sql.database import Database
from audit_svc.sql.read import listing, model_requests, producers, queries, tool_calls, walks
from audit_svc.sql.usage import summaries
from audit_svc.sql.usage.session_usage import sum_some
from audit_svc.sql.usage.usage_tables import usage_tables
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.read.database import SQLITE, SqliteDatabase
from audit_svc.sqlite.write.inserts import Inserts
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row
from tests.support.copied import copy_tables

pytestmark = pytest.mark.postgres

TIMES = st.sampled_from([NOW_MS - off for off in (0, 1, 2, HOUR_MS, 25 * HOUR_MS, 40 * 24 * HOUR_MS)])
SESSIONS, ENGINES, MODELS = ["s1", "s2", "S2", "s€", "unknown"], ["ollama", "openai", "Ärger"], ["", "small", "large"]
TOOLS, NAMES, PEOPLE = ["read", "bash", "webfetch"], ["", "a", "b"], [None, "ada", "bob"]
TEXTS = ["ls -l", "LS -l 100%", 'rm "a_b"', "Ä quote \\ back", "needle in the hay", "NEEDLE_in", ""]
SUMMED = [0, 1, 33, MAX_SUMMED, 2**50]
LABELS = st.dictionaries(st.sampled_from(["user", "team"]), st.sampled_from(["ada", "red", "Ö"]), max_size=2)
STATUSES = [None, "running", "idle", "failed"]
OUTCOMES = [None, "succeeded", "failed", "denied"]

CALLS = st.builds(
    audit_row,
    session_id=st.sampled_from(SESSIONS),
    engine=st.sampled_from(ENGINES),
    model=st.sampled_from(MODELS),
    tool_name=st.sampled_from(TOOLS),
    args_summary=st.sampled_from(TEXTS),
    outcome=st.sampled_from([1, 2, 4]),
    error=st.sampled_from([None, "broken"]),
    exit_code=st.sampled_from([None, 0, -2]),
    http_status=st.sampled_from([None, 200, 404]),
    shadow=st.booleans(),
    duration_ms=st.sampled_from(SUMMED),
    result_bytes=st.sampled_from([None, *SUMMED]),
    created_at_ms=TIMES,
    principal=st.sampled_from(PEOPLE),
    source=st.sampled_from([0, common_pb2.SOURCE_OWN_LOOP, common_pb2.SOURCE_HOOK]),
    agent=st.sampled_from([None, common_pb2.Software(name="reviewer", version="1")]),
)
REQUESTS = st.builds(
    cost_row,
    session_id=st.sampled_from(SESSIONS),
    turn_id=st.sampled_from(["t1", "t2"]),
    engine=st.sampled_from(ENGINES),
    model=st.sampled_from(MODELS),
    error=st.sampled_from([None, "broken"]),
    shadow=st.booleans(),
    input_tokens=st.sampled_from(SUMMED),
    cost_micros=st.sampled_from([None, 0, 7]),
    created_at_ms=TIMES,
)
ROWS_OF_SESSIONS = st.builds(
    session_row,
    id=st.sampled_from(SESSIONS[:-1]),
    engine=st.sampled_from(ENGINES),
    model=st.sampled_from(MODELS),
    labels=LABELS,
    created_at_ms=TIMES,
    updated_at_ms=TIMES,
)
CONTROLS = st.builds(
    audit_pb2.ControlRow,
    id=st.uuids().map(str),
    kind=st.sampled_from([1, 2]),
    principal=st.sampled_from(["", "ada"]),
    scope=st.just("all"),
    at_ms=TIMES,
)
LOGGED = st.builds(
    administration_pb2.QueryRow,
    caller=st.sampled_from(NAMES),
    method=st.sampled_from(["ListToolCalls", "GetSession"]),
    filters=st.just("{}"),
    status=st.just("OK"),
    times=st.just(1),
    created_at_ms=TIMES,
)
NUMBERS = st.builds(
    audit_pb2.SessionNumbers,
    session_id=st.sampled_from(SESSIONS),
    stream=st.sampled_from(["one", "two"]),
    first=st.integers(0, 3),
    last=st.integers(3, 5),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """A batch of any rows, some of which are refused, or the log of some queries."""
    if draw(st.integers(0, 5)) == 0:
        return query_batch(draw(st.lists(LOGGED, max_size=3)))
    first = draw(st.integers(1, 9))
    request = record_request(
        producer_id=draw(st.sampled_from(["p", "P", "session/x", "SESSION/x/y"])),
        first=first,
        last=first + draw(st.integers(0, 2)),
        tool_calls=[
            *draw(st.lists(CALLS, max_size=12)),
            *([audit_row(id="", tool_name="")] if draw(st.booleans()) else []),
        ],
        model_requests=draw(st.lists(REQUESTS, max_size=6)),
        sessions=draw(st.lists(ROWS_OF_SESSIONS, max_size=4)),
        controls=draw(st.lists(CONTROLS, max_size=2)),
        session_numbers=draw(st.lists(NUMBERS, max_size=2)),
    )
    return read_batch(request, NOW_MS, draw(st.sampled_from(NAMES)))


def equal(**values: Any) -> st.SearchStrategy[dict[str, str]]:
    """Conditions on some columns."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(some) for name, some in values.items()})


RANGES: st.SearchStrategy[tuple[int | None, int | None]] = st.one_of(
    st.just((None, None)),
    TIMES.map(lambda time: (time, None)),
    TIMES.map(lambda time: (None, time)),
    st.tuples(TIMES, TIMES).map(lambda ends: (min(ends), max(ends) + 1)),
)
FLAGS = st.sampled_from([None, None, None, True, False])
LABELLED = LABELS.map(lambda labels: tuple(sorted(labels.items())))


def filters(equals: st.SearchStrategy[dict[str, str]], **others: Any) -> st.SearchStrategy[Filter]:
    """Filters of a kind of rows."""
    return st.builds(
        lambda times, **fields: Filter(**fields, from_ms=times[0], before_ms=times[1]), RANGES, equal=equals, **others
    )


CALL_FILTERS = filters(
    equal(
        session_id=SESSIONS,
        engine=[*ENGINES, "a\0b"],
        model=MODELS[1:],
        tool_name=TOOLS,
        recorded_by=NAMES,
        principal=PEOPLE[1:],
        agent=["reviewer"],
    ),
    outcomes=st.lists(st.sampled_from(OUTCOMES), unique=True, max_size=3).map(tuple),
    has_error=FLAGS,
    shadow=FLAGS,
    clock_suspect=FLAGS,
    labels=LABELLED,
    contains=st.sampled_from(["", "", "", "ls", "needle", "E_I", "ä", "%", "\\", "nowhere", "s -l\0"]),
    any_of=st.fixed_dictionaries(
        {}, optional={"source": st.lists(st.sampled_from([None, "own_loop", "hook"]), min_size=1, unique=True)}
    ).map(lambda found: {name: tuple(some) for name, some in found.items()}),
)
REQUEST_FILTERS = filters(
    equal(session_id=SESSIONS, turn_id=["t1"], engine=ENGINES, model=MODELS[1:], recorded_by=NAMES),
    has_error=FLAGS,
    shadow=FLAGS,
    clock_suspect=FLAGS,
    labels=LABELLED,
)
SESSION_FILTERS = filters(
    equal(id=SESSIONS, engine=ENGINES, model=MODELS[1:]),
    statuses=st.lists(st.sampled_from(STATUSES), unique=True, max_size=3).map(tuple),
    labels=LABELLED,
    updated_from_ms=st.none() | TIMES,
    any_of=st.fixed_dictionaries(
        {}, optional={"id": st.lists(st.sampled_from(SESSIONS), min_size=1, unique=True).map(tuple)}
    ),
)
GROUPS = ["session", "recorded_by", "engine", "model", "tool", "outcome", "hour", "day", "label:user", "label:team"]
GROUPS += ["principal", "agent", "source", "mcp_server"]

Ask = Callable[[Database], Any]


def all_of(ask: Callable[[Database, Query], Any], query: Query) -> Ask:
    """All pages of a listing, or what the ledger says against it."""

    def pages(database: Database) -> list[Any]:
        found, after = list[Any](), query.after
        while True:
            try:
                page = ask(database, replace(query, after=after))
            except AuditError as error:
                return [*found, type(error), str(error)]
            if isinstance(page, tuple):
                session, page = page
                found.append(session)
            found += page.rows
            if (after := page.next) is None:
                return found

    return pages


def exported(export: Any, key: Any, wanted: Filter, last: int, size: int) -> Ask:
    """All of an export."""

    def rows(database: Database) -> list[Any]:
        found, after = list[Any](), None
        while part := export(database, wanted, after, last, size):
            found += part
            after = key(part[-1])
        return found

    return rows


SIZES = st.integers(1, 7)
LISTINGS: list[st.SearchStrategy[Ask]] = [
    st.builds(all_of, st.just(ask), st.builds(Query, wanted, SIZES, st.none()))
    for ask, wanted in (
        (tool_calls.list_tool_calls, CALL_FILTERS),
        (model_requests.list_model_requests, REQUEST_FILTERS),
        (queries.list_sessions, SESSION_FILTERS),
        (
            queries.list_controls,
            filters(equal(principal=["ada"], recorded_by=NAMES), any_of=st.just({}) | st.just({"kind": ("stopped",)})),
        ),
        (queries.list_queries, filters(equal(caller=["a"], method=["GetSession"]))),
        (producers.list_producers, filters(equal(recorded_by=NAMES, session_id=SESSIONS), is_whole=FLAGS)),
        (
            queries.get_session,
            st.builds(
                lambda session, names: Filter({"session_id": session, **names}),
                st.sampled_from(SESSIONS),
                equal(recorded_by=NAMES),
            ),
        ),
    )
]
SUMMARIES = st.builds(
    lambda wanted, size, groups, by_cost: all_of(
        summaries.summarize_usage, Query(wanted, size, None, tuple(groups), by_cost)
    ),
    CALL_FILTERS,
    SIZES,
    st.lists(st.sampled_from(GROUPS), unique=True, max_size=3),
    st.booleans(),
)
OTHERS: list[st.SearchStrategy[Ask]] = [
    st.builds(
        exported, st.just(tool_calls.export_tool_calls), st.just(call_key), CALL_FILTERS, st.integers(0, 30), SIZES
    ),
    st.builds(
        exported,
        st.just(model_requests.export_model_requests),
        st.just(request_key),
        REQUEST_FILTERS,
        st.integers(0, 20),
        SIZES,
    ),
    st.builds(
        lambda wanted, at: lambda database: tool_calls.tool_calls_after(database, wanted, at),
        CALL_FILTERS,
        st.integers(0, 30),
    ),
    st.builds(
        lambda wanted, at: lambda database: model_requests.model_requests_after(database, wanted, at),
        REQUEST_FILTERS,
        st.integers(0, 20),
    ),
]
QUESTIONS = st.one_of(*LISTINGS, LISTINGS[0], SUMMARIES, SUMMARIES, *OTHERS)


@pytest.fixture(params=["few", "many"])
def size_of_a_ledger(request: pytest.FixtureRequest) -> Iterator[None]:
    """As a small ledger is asked, and as one of millions of rows is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summaries, "is_short", lambda *_: request.param == "few")
        if request.param == "many":
            patch.setattr(listing, "FEW_SESSIONS", 1)
            patch.setattr(listing, "SOME_SESSIONS", 2)
            patch.setattr(walks, "MAX_PAIRS", 1)
            patch.setattr(walks, "FIRST_WINDOW", 2)
            patch.setattr(walks, "LAST_WINDOW", 5)
            patch.setattr(walks, "LONG_WALK", -1)
        yield


@pytest.fixture
def sqlite() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate.up(connection, migrate.load_migrations())
    yield connection
    connection.close()


@pytest.mark.parametrize("with_index", [True, False], ids=["pg_trgm", "scans"])
def test_both_stores_answer_alike(
    sqlite: apsw.Connection, migrated: Connection, with_index: bool, size_of_a_ledger: None
) -> None:
    if with_index:
        for statement in trigrams.MAKE_INDEX:
            migrated.execute(statement)
    assert trigrams.has_index(migrated) == with_index
    one, other = SqliteDatabase(sqlite), PostgresDatabase(migrated, has_trigrams=with_index)

    # A history is small already, and takes tens of milliseconds: it is not made smaller.
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(
        recorded=st.lists(batches(), min_size=1, max_size=6),
        summed=st.tuples(st.integers(0, 40), st.integers(0, 20)),
        questions=st.lists(QUESTIONS, min_size=8, max_size=16),
    )
    def ask_both(recorded: list[Batch], summed: tuple[int, int], questions: list[Ask]) -> None:
        sqlite.execute("BEGIN")
        try:
            inserts = Inserts(sqlite)
            for batch in recorded:
                inserts.write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
            for kind, rows in zip(usage_tables(SQLITE).kinds, summed, strict=True):
                sum_some(sqlite, kind, rows)
            copy_tables(sqlite, migrated)
            for question in questions:
                try:
                    answer = question(other)
                except Exception as error:
                    raise AssertionError(f"asked in vain: {error}") from error
                assert answer == question(one)
        finally:
            sqlite.execute("ROLLBACK")

    ask_both()
