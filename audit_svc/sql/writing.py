"""What writing needs of a connection. The SQL is written as SQLite takes it."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


def larger(a: str, b: str) -> str:
    """SQL for the larger of two values: what SQLite calls max(), PostgreSQL calls greatest()."""
    return f"CASE WHEN {a} >= {b} THEN {a} ELSE {b} END"


def smaller(a: str, b: str) -> str:
    """SQL for the smaller of two values."""
    return f"CASE WHEN {a} <= {b} THEN {a} ELSE {b} END"


class Connection(Protocol):
    """What runs SQL, and says how many rows it changed."""

    def execute(self, sql: str, arguments: Sequence[Any] = ..., /) -> Any:
        """A cursor, which has fetchone() and fetchall(), and can be gone through."""
        ...

    def executemany(self, sql: str, arguments: Iterable[Sequence[Any]], /) -> Any:
        """Runs a statement for each of arguments."""
        ...

    def changes(self) -> int:
        """How many rows the last statement has written or removed."""
        ...
