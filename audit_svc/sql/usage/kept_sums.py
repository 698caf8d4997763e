"""Sums that are read, added to and written again many at a time, so that few statements go to a server for them."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from audit_svc.sql.database import Connection

MOST_ROWS = 64
"""Of one statement. There is one for each power of two up to it, so that databases know them all."""

Key = tuple[Any, ...]


class KeptSums:
    """The rows of a table by their key."""

    def __init__(self, table: str, key: Sequence[str], sums: Sequence[str]) -> None:
        """key, sums: columns."""
        self._table, self._key, self._sums = table, tuple(key), tuple(sums)

    def read(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, list[Any]]:
        """The sums of those keys that the table has."""
        width = len(self._key)
        columns = (*self._key, *self._sums)
        found = rows_of(connection, self._table, self._key, columns, keys)
        return {tuple(row[:width]): list(row[width:]) for row in found}

    def write(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Writes rows of key and sums in the place of those that the table has. No key comes twice."""
        for part in _parts(rows):
            sql = _upsert(self._table, self._key, self._sums, len(part))
            connection.execute(sql, [value for row in part for value in row])


def rows_of(
    connection: Connection, table: str, key: tuple[str, ...], columns: tuple[str, ...], keys: Sequence[Key]
) -> Iterator[Sequence[Any]]:
    """The columns of all rows of a table that have one of keys."""
    for part in _parts(keys):
        sql = _select(table, key, columns, len(part))
        yield from connection.execute(sql, [value for one in part for value in one]).fetchall()


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    first = 0
    while (left := len(rows) - first) > 0:
        size = min(MOST_ROWS, 1 << (left.bit_length() - 1))
        yield rows[first : first + size]
        first += size


def _places(width: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * width)})"] * rows)


@lru_cache(64)
def _select(table: str, key: tuple[str, ...], columns: tuple[str, ...], rows: int) -> str:
    which = f"({', '.join(key)}) IN (VALUES {_places(len(key), rows)})"
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {which}"  # noqa: S608 - names of ours


@lru_cache(64)
def _upsert(table: str, key: tuple[str, ...], sums: tuple[str, ...], rows: int) -> str:
    columns = (*key, *sums)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {_places(len(columns), rows)} "  # noqa: S608 - names of ours
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in sums)}"
    )
