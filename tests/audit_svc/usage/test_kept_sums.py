"""Sums that are read and written many at a time: all of them, once, and by few statements."""

from collections.abc import Sequence
from typing import Any

import apsw
import pytest

from audit_svc.sql.usage.kept_sums import MOST_ROWS, KeptSums, rows_of

KEPT = KeptSums("kept", ("name", "hour"), ("calls", "bytes"))


class Counting:
    """A connection that counts its statements."""

    def __init__(self) -> None:
        self._connection = apsw.Connection(":memory:")
        self._connection.execute("CREATE TABLE kept (name, hour, calls, bytes, PRIMARY KEY (name, hour))")
        self.statements = 0

    def execute(self, sql: str, arguments: Sequence[Any] = ()) -> Any:
        self.statements += 1
        return self._connection.execute(sql, arguments)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 63, 64, 65, 127, 128, 200, 1000])
def test_all_rows_are_written_and_read_by_few_statements(rows: int) -> None:
    connection = Counting()
    KEPT.write(connection, [("a", hour, hour, 0) for hour in range(rows)])
    KEPT.write(connection, [("a", hour, hour, 2 * hour) for hour in range(rows)])
    written = connection.statements
    keys = [("a", hour) for hour in range(rows)]
    assert KEPT.read(connection, keys) == {("a", hour): [hour, 2 * hour] for hour in range(rows)}
    most = rows // MOST_ROWS + MOST_ROWS.bit_length()
    assert written <= 2 * most
    assert connection.statements - written <= most


def test_a_key_that_the_table_has_not_is_not_among_what_is_read() -> None:
    connection = Counting()
    KEPT.write(connection, [("a", 1, 10, 20), ("b", 2, 30, 40)])
    assert KEPT.read(connection, [("a", 2), ("b", 1), ("b", 2)]) == {("b", 2): [30, 40]}


def test_all_rows_of_a_key_are_read() -> None:
    connection = Counting()
    KEPT.write(connection, [("a", 1, 10, 0), ("a", 2, 20, 0), ("b", 1, 30, 0), ("c", 1, 40, 0)])
    found = rows_of(connection, "kept", ("name",), ("name", "calls"), [("a",), ("c",), ("d",)])
    assert sorted(map(tuple, found)) == [("a", 10), ("a", 20), ("c", 40)]
