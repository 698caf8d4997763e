"""The tables of a ledger in PostgreSQL, as copying reads and writes them: see ledger.copying.Tables."""

from collections.abc import Sequence
from typing import Any

import psycopg

from audit_svc.errors import StoreRefused
from audit_svc.ledger.copying import SUM_MODULUS, Table
from audit_svc.postgres.open.connection import Connection, transaction, translated
from audit_svc.postgres.open.spelling import spelled

_TYPES = {"bigint": "int8", "smallint": "int2", "text": "text", "bytea": "bytea"}


class PostgresTables:
    """A connection to a database that no service writes to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def columns(self, table: Table) -> list[str]:
        """The names of a table's columns, sorted."""
        return sorted(self._types(table))

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

    def sums(self, table: Table, columns: Sequence[str]) -> list[int]:
        """Counts and sums."""
        types = self._types(table)
        of = {"text": "sum(char_length({0}))", "bytea": "sum(octet_length({0}))"}
        sums = [of.get(types[name], f"sum({{0}} % {SUM_MODULUS})").format(name) for name in columns]
        ((*said,),) = self._all(f"SELECT count(*), {', '.join(sums)} FROM {table.name}")  # noqa: S608 - names of ours
        return [int(number or 0) for number in said]

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
