"""The index of texts: used where it is and for what is rare, left in time, and said to be there or not."""

import time

import pytest
import structlog

from audit_svc.postgres.open.connection import Connection
from audit_svc.postgres.read.database import PostgresDatabase
from audit_svc.postgres.read.reader import PostgresReader
from audit_svc.postgres.store import PostgresLedger
from audit_svc.postgres.text import trigrams
from audit_svc.sql.read import listing, tool_calls
from audit_svc.sql.read.listing import CALL_NAMES

pytestmark = pytest.mark.postgres
FILL = (
    "INSERT INTO tool_call_log SELECT n, n, n, 1, 0, NULL, 1, 0, NULL, NULL, NULL, 0, 0, 0, NULL, "
    "'r' || n, '', 's', 't', 'e', 'm', 'bash', "
    "CASE WHEN n % 1000 = 7 THEN 'A needle_in 100% hay' ELSE 'frequent words, limit: ' || n END, "
    "'succeeded', NULL, '', '' FROM generate_series(1, 20000) n"
)
TEXT_AT, POSITION_AT = CALL_NAMES.index("args_summary"), CALL_NAMES.index("position")


def make_index(connection: Connection) -> None:
    for statement in trigrams.MAKE_INDEX:
        connection.execute(statement)


def search(connection: Connection, text: str, before: int, size: int) -> tuple[list[int], object]:
    database = PostgresDatabase(connection, has_trigrams=True)
    found = trigrams.TextSearch(database, text, listing.contains("args_summary", text))
    rows, rest = found.rows((before, 0), size, time.monotonic() + 60)
    return [row[POSITION_AT] for row in rows], rest


@pytest.fixture
def filled(migrated: Connection) -> Connection:
    migrated.execute(FILL)
    make_index(migrated)
    migrated.execute("ANALYZE tool_call_log")
    return migrated


@pytest.mark.parametrize("text", ["NEEDLE", "e_i", "needle_in 100%", "100% hay"])
def test_rows_with_a_text_come_in_the_order_of_the_listing(filled, text):
    assert search(filled, text, 10_000, 3) == ([9007, 8007, 7007], None)
    assert search(filled, text, 2_000, 9) == ([1007, 7], None)


def test_a_text_with_what_has_a_meaning_in_patterns_is_a_text(filled):
    assert search(filled, "needle%in", 20_001, 9) == ([], None)
    assert search(filled, "nee_le", 20_001, 9) == ([], None)
    assert search(filled, "need\\le", 20_001, 9) == ([], None)


def test_a_text_is_found_by_the_index_and_not_by_its_rows(filled):
    with filled.raw.transaction():
        for setting in trigrams._BY_BITMAP:
            filled.execute(setting)
        plan = filled.execute("EXPLAIN SELECT * FROM tool_call_log WHERE lower(args_summary) LIKE '%needle%'")
        assert any("Bitmap Index Scan on idx_tool_call_log_args" in line for (line,) in plan)


def test_a_search_that_takes_too_long_goes_on_where_it_began(filled, monkeypatch):
    monkeypatch.setattr(trigrams, "SEARCH_SECONDS", 0.001)
    filled.execute("UPDATE tool_call_log SET args_summary = args_summary || repeat(' frequent', 400)")
    assert search(filled, "frequent", 20_001, 9) == ([], (20_001, 0))
    assert filled.execute("SHOW statement_timeout").fetchall() == [("0",)]


async def test_how_texts_are_looked_for_is_said_when_it_is_known_and_when_it_changes(migrated, postgres_database):
    with structlog.testing.capture_logs() as logged:
        for made in (False, True):
            reader = PostgresReader(postgres_database, readers=2)
            for _ in range(3):
                await reader.ask(tool_calls.last_position)
            reader.close()
            make_index(migrated)
            assert trigrams.has_index(migrated), made
    assert [line["by"] for line in logged if line["event"] == "store.texts"] == ["scans", "pg_trgm"]


async def test_a_ledger_says_at_its_start_how_texts_are_looked_for(migrated, postgres_database):
    make_index(migrated)
    with structlog.testing.capture_logs() as logged:
        ledger = PostgresLedger.open(postgres_database, queue_rows=10)
        await ledger.close()
    assert [line["by"] for line in logged if line["event"] == "store.texts"] == ["pg_trgm"]


def test_an_index_that_was_not_finished_is_none(filled):
    filled.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(?)", (trigrams.INDEX,))
    assert not trigrams.has_index(filled)


@pytest.mark.parametrize(
    ("text", "has"), [("ab", False), ("a b c", False), ("..abc", True), ("ÄÖÜ", False), ("ABC", True)]
)
def test_a_text_without_three_letters_together_has_no_trigram(text, has):
    assert trigrams.has_trigram(text) == has
