"""The listing of model requests: that each filter walks an index, and that pages hold every row once."""

import itertools
import random
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.query import filter_of
from audit_svc.sql.read import listing, model_requests
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.read.database import SqliteDatabase
from audit_svc.sqlite.write.writer import Writer
from service_kit.paging import InvalidPage
from tests.audit_svc import asking
from tests.audit_svc.samples import NOW_MS, cost_row, question, record_request, row_of, session_row
from tests.support.pages import pages

Request = questions_pb2.ListModelRequestsRequest
RANDOM = random.Random(7)
ROWS = [
    cost_row(
        session_id=f"s{n % 5}",
        turn_id=f"t{n % 10}",
        engine=("ollama", "openai", "anthropic")[n % 3],
        model=("small", "large", "")[n // 70],
        error="engine_rejected, HTTP 400" if n % 4 == 0 else None,
        shadow=n % 7 == 0,
        created_at_ms=NOW_MS - RANDOM.randrange(40),
    )
    for n in range(200)
]
SETTINGS: dict[str, Any] = {
    "session_id": "s1",
    "turn_id": "t6",
    "engine": "ollama",
    "model": "small",
    "has_error": True,
    "shadow": False,
    "labels": {"n": "1"},
    "created_from_ms": NOW_MS - 30,
    "created_before_ms": NOW_MS - 5,
}
FILTERS = [
    dict(chosen) for size in (0, 1, 2, len(SETTINGS)) for chosen in itertools.combinations(SETTINGS.items(), size)
]
FILTERS += [{"has_error": False}, {"clock_suspect": True}, {"clock_suspect": False}, {"model": "nothing"}]


def matches(row: audit_pb2.CostRow, filters: dict[str, Any]) -> bool:
    texts = ("session_id", "turn_id", "engine", "model", "shadow")
    return (
        all(filters.get(name, getattr(row, name)) == getattr(row, name) for name in texts)
        and row.HasField("error") == filters.get("has_error", row.HasField("error"))
        and not filters.get("clock_suspect")
        and filters.get("labels", {}).items() <= {"n": row.session_id[1:]}.items()
        and filters.get("created_from_ms", 0) <= row.created_at_ms < filters.get("created_before_ms", 2**62)
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    """A ledger of ROWS that no test changes."""
    database = tmp_path_factory.mktemp("filled") / "audit.db"
    connection = open_for_writing(database)
    migrate.up(connection, migrate.load_migrations())
    sessions = [session_row(id=f"s{n}", labels={"n": str(n)}) for n in range(5)]
    with closing(Writer(connection, 50_000)) as writer:
        writer.record(read_batch(record_request(model_requests=ROWS, sessions=sessions), NOW_MS)).result()
    reading = open_for_reading(database)
    yield reading
    reading.close()


def test_every_listing_walks_an_index_in_its_own_order(filled, patient):
    for filters in FILTERS:
        asked = filter_of(question(Request, **filters))
        chosen = model_requests.plan_of(SqliteDatabase(filled), asked)
        after = listing.after_key((NOW_MS, 1))
        for conditions in ([], after, [*listing.time_range(asked), *after]):
            sql, arguments = chosen.statement(conditions, 101)
            rows = filled.execute(f"EXPLAIN QUERY PLAN {sql}", arguments)
            found = "; ".join(str(row[3]) for row in rows)
            assert "USING INDEX idx_cost_log_" in found, (filters, found)
            assert "SCAN cost_log;" not in found, (filters, found)
            assert "AUTOMATIC" not in found, (filters, found)
            if not (chosen.is_short and "labels" in filters and "session_id" not in filters):
                assert "USE TEMP B-TREE FOR ORDER BY" not in found, (filters, found)


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"session_id": "s1", "turn_id": "t1"}, "session"),
        ({"engine": "ollama", "model": "small"}, "model"),
        ({"engine": "ollama"}, "model"),
        ({"model": "small"}, "model"),
        ({"has_error": True}, "failed"),
        ({"clock_suspect": True}, "suspect"),
        ({}, "created"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else value,
)
def test_the_usual_filters_are_known_to_the_index_that_is_walked(filled, filters, index):
    chosen = model_requests.plan_of(SqliteDatabase(filled), filter_of(question(Request, **filters)))
    assert {walk.index for walk in chosen.walks} == {f"idx_cost_log_{index}"}
    assert {part.sql for part in chosen.others} <= {"turn_id = ?"}


@pytest.mark.long
def test_pages_hold_every_matching_row_once_the_newest_first(filled, patient):
    for filters in FILTERS:
        asked = question(Request, **filters, page_size=7)
        listed = pages(partial(asking.list_model_requests, filled), asked)
        found = [row_of(one) for page in listed for one in page.model_requests]
        expected = [row for row in ROWS if matches(row, filters)]
        assert found == sorted(expected, key=lambda row: row.created_at_ms)[::-1], filters


def test_a_page_token_is_good_for_its_own_filters_and_method_alone(filled):
    token = asking.list_model_requests(filled, question(Request, page_size=1, engine="ollama")).next_page_token
    for asked in (Request(page_token=token), question(Request, engine="openai", page_token=token)):
        with pytest.raises(InvalidPage):
            asking.list_model_requests(filled, asked)
    with pytest.raises(InvalidPage):
        asking.list_tool_calls(filled, question(questions_pb2.ListToolCallsRequest, engine="ollama", page_token=token))
