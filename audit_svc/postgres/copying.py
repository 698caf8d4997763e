"""The tables of a ledger in PostgreSQL, as copying reads and writes them: see ledger.copying.Tables."""

from collections.abc import Sequence
from typing import Any

import psycopg

from audit_svc.errors import StoreRefused
from audit_svc.ledger.copying import SUM_MODULUS, Table
from audit_svc.postgres.open.connection import Connection, transaction, translated
from audit_svc.postgres.open.spelling import spelled
from audit_svc.sql.copying import SqlTables

_TYPES = {"bigint": "int8", "smallint": "int2", "text": "text", "bytea": "bytea"}


class PostgresTables(SqlTables):
    """A connection to a database that no service writes to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def columns(self, table: Table) -> list[str]:
        """The names of a table's columns, sorted."""
        return sorted(self._types(table))

    def add(self, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, instead: bool) -> None:
        """Adds rows by COPY, in one transaction. Raises StoreRefused: a text cannot be kept here."""
        types = self._types(table)
        sql = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        try:
            with translated(), transaction(self._connection):
                if instead:
                    self._connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - names of ours
                with psycopg.RawCursor(self._connection.raw) as cursor, cursor.copy(sql.encode()) as copy:
                    copy.set_types([types[name] for name in columns])
                    for row in rows:
                        copy.write_row(row)
        except psycopg.DataError as error:
            raise StoreRefused(
                f"a row of {table.name} from {rows[0][columns.index(table.key[0])]!r} on cannot be kept in PostgreSQL "
                f"({type(error).__name__})"
            ) from None

    def _sums(self, table: Table) -> dict[str, str]:
        of = {"text": "sum(char_length({0}))", "bytea": "sum(octet_length({0}))"}
        number = f"sum({{0}} % {SUM_MODULUS})"
        return {name: of.get(type_, number).format(name) for name, type_ in self._types(table).items()}

    def _types(self, table: Table) -> dict[str, str]:
        found = self._all(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'public' AND table_name = ?",
            (table.name,),
        )
        return {str(name): _TYPES[type_] for name, type_ in found}

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with translated():
            cursor = psycopg.RawCursor(self._connection.raw)
            return cursor.execute(spelled(sql).encode(), tuple(values) or None, binary=True).fetchall()
