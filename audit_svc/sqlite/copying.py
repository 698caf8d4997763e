"""The tables of a ledger in SQLite, as copying reads and writes them: see ledger.copying.Tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit_svc.ledger.copying import SUM_MODULUS, Table
from audit_svc.sqlite.open.connection import Connection, transaction, translated


class SqliteTables:
    """A connection to a file that no service has open."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self.connection = connection
        self._path = path

    def columns(self, table: Table) -> list[str]:
        """The names of a table's columns, sorted."""
        return sorted(name for name, _ in self._types(table))

    def rows(self, table: Table, columns: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Any]:
        """Rows behind a key."""
        key = ", ".join(table.key)
        behind = f"WHERE ({key}) > ({', '.join('?' * len(table.key))}) " if after is not None else ""
        return self._all(
            f"SELECT {', '.join(columns)} FROM {table.name} {behind}ORDER BY {key} LIMIT {limit}",  # noqa: S608 - names of ours
            after or (),
        )

    def last_key(self, table: Table) -> Sequence[Any] | None:
        """The key of the last row."""
        order = ", ".join(f"{name} DESC" for name in table.key)
        found = self._all(f"SELECT {', '.join(table.key)} FROM {table.name} ORDER BY {order} LIMIT 1")  # noqa: S608 - names of ours
        return list(found[0]) if found else None

    def add(self, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, instead: bool) -> None:
        """Adds rows in one transaction."""
        with translated(self._path), transaction(self.connection):
            if instead:
                self.connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - names of ours
            self.connection.executemany(
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608 - names of ours
                rows,
            )

    def sums(self, table: Table, columns: Sequence[str]) -> list[int]:
        """Counts and sums."""
        is_number = {name: type_ == "INTEGER" for name, type_ in self._types(table)}
        sums = [f"sum({name} % {SUM_MODULUS})" if is_number[name] else f"sum(length({name}))" for name in columns]
        ((*said,),) = self._all(f"SELECT count(*), {', '.join(sums)} FROM {table.name}")  # noqa: S608 - names of ours
        return [int(number or 0) for number in said]

    def _types(self, table: Table) -> list[Any]:
        return self._all("SELECT name, type FROM pragma_table_info(?)", (table.name,))

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with translated(self._path):
            return self.connection.execute(sql, values).fetchall()
