"""What copying asks the tables of any SQL database alike: see ledger.copying.Tables."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from audit_svc.ledger.copying import Table


class SqlTables(ABC):
    """Tables whose rows are read in the order of their keys."""

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

    def sums(self, table: Table, columns: Sequence[str]) -> list[int]:
        """Counts and sums."""
        sums = ", ".join(map(self._sums(table).__getitem__, columns))
        ((*said,),) = self._all(f"SELECT count(*), {sums} FROM {table.name}")  # noqa: S608 - names of ours
        return [int(number or 0) for number in said]

    @abstractmethod
    def _sums(self, table: Table) -> dict[str, str]:
        """What sums up each column, in SQL."""

    @abstractmethod
    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a query."""
