"""What a listing reads is what the database has."""

import apsw
from hypothesis import given
from hypothesis import strategies as st

from audit_svc.sql.read.listing import Statement
from audit_svc.sqlite.read.database import SqliteDatabase

VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text()


@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_any_text_number_and_null_is_fetched_as_it_is_and_in_order(rows: list[tuple[str | int | None, ...]]) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t (place INTEGER PRIMARY KEY, one, other)")
    connection.executemany("INSERT INTO t (one, other) VALUES (?, ?)", rows)
    statement = Statement("SELECT one, other FROM t ORDER BY place DESC LIMIT ?", [len(rows)])
    assert list(map(tuple, SqliteDatabase(connection).fetch(["one", "other"], statement))) == rows[::-1]


def test_what_json_makes_is_fetched_as_such() -> None:
    connection = apsw.Connection(":memory:")
    labels = "json((SELECT json_group_object(k, v) FROM (SELECT 'a' AS k, 'x' AS v UNION SELECT 'b', 'y')))"
    assert SqliteDatabase(connection).fetch(["1", labels], Statement("SELECT 1", [])) == [[1, {"a": "x", "b": "y"}]]
