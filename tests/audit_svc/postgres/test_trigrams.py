"""The index of texts: made where it can be, told where it cannot, used for what is rare, and left in time."""

import time

import pytest
from psycopg.conninfo import make_conninfo

from audit_svc.postgres.open.connection import Connection, connect
from audit_svc.postgres.read.database import PostgresDatabase
from audit_svc.postgres.text import trigrams
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import CALL_NAMES

pytestmark = pytest.mark.postgres
FILL = (
    "INSERT INTO tool_call_log SELECT n, n, n, 1, 0, NULL, 1, 0, NULL, NULL, NULL, 0, 0, 0, NULL, "
    "'r' || n, '', 's', 't', 'e', 'm', 'bash', "
    "CASE WHEN n % 1000 = 7 THEN 'A needle_in 100% hay' ELSE 'frequent words, limit: ' || n END, "
    "'succeeded', NULL, '', '' FROM generate_series(1, 20000) n"
)
TEXT_AT, POSITION_AT = CALL_NAMES.index("args_summary"), CALL_NAMES.index("position")


def search(connection: Connection, text: str, before: int, size: int) -> tuple[list[int], object]:
    database = PostgresDatabase(connection, has_trigrams=True)
    found = trigrams.TextSearch(database, text, listing.contains("args_summary", text))
    rows, rest = found.rows((before, 0), size, time.monotonic() + 60)
    return [row[POSITION_AT] for row in rows], rest


@pytest.fixture
def filled(migrated: Connection) -> Connection:
    assert trigrams.make_index(migrated) == ""
    migrated.execute(FILL)
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


def test_who_may_not_make_the_index_is_told_so(migrated, postgres_database):
    migrated.execute("DROP ROLE IF EXISTS least")
    migrated.execute("CREATE ROLE least LOGIN")
    migrated.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO least")
    least = connect(make_conninfo(postgres_database, user="least"))
    try:
        assert "may not make it" in trigrams.make_index(least)
        assert not trigrams.has_index(least)
    finally:
        least.close()
        migrated.execute("DROP OWNED BY least")
        migrated.execute("DROP ROLE least")


def test_a_ledger_with_calls_is_not_kept_waiting_for_its_index(migrated):
    migrated.execute(FILL)
    why = trigrams.make_index(migrated)
    assert why == f"there are tool calls already: as the owner, run {trigrams.MAKE_INDEX}"
    assert not trigrams.has_index(migrated)
    migrated.execute(trigrams.MAKE_INDEX)
    assert trigrams.make_index(migrated) == ""
    assert trigrams.has_index(migrated)


@pytest.mark.parametrize(
    ("text", "has"), [("ab", False), ("a b c", False), ("..abc", True), ("ÄÖÜ", False), ("ABC", True)]
)
def test_a_text_without_three_letters_together_has_no_trigram(text, has):
    assert trigrams.has_trigram(text) == has
