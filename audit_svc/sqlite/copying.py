"""The tables of a ledger in SQLite, as copying reads and writes them: see ledger.copying.Tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit_svc.ledger.copying import SUM_MODULUS, Table
from audit_svc.sql.copying import SqlTables
from audit_svc.sqlite.open.connection import Connection, transaction, translated


class SqliteTables(SqlTables):
    """A connection to a file that no service has open."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self.connection = connection
        self._path = path

    def columns(self, table: Table) -> list[str]:
        """The names of a table's columns, sorted."""
        return sorted(name for name, _ in self._types(table))

    def add(self, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, instead: bool) -> None:
        """Adds rows in one transaction."""
        with translated(self._path), transaction(self.connection):
            if instead:
                self.connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - names of ours
            self.connection.executemany(
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608 - names of ours
                rows,
            )

    def _sums(self, table: Table) -> dict[str, str]:
        number, text = f"sum({{0}} % {SUM_MODULUS})", "sum(length({0}))"
        return {name: (number if type_ == "INTEGER" else text).format(name) for name, type_ in self._types(table)}

    def _types(self, table: Table) -> list[Any]:
        return self._all("SELECT name, type FROM pragma_table_info(?)", (table.name,))

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with translated(self._path):
            return self.connection.execute(sql, values).fetchall()
