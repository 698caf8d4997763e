"""Copying a ledger from one store to another: every table with its positions, in the order of its key.

It is resumable: each batch is a transaction of the target, and what comes next is behind the last key that is there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from audit_svc.errors import StoreRefused

UNFINISHED = "copying"
"""The file beside the target's seal that is there while a copy is not finished, and says of which state."""
BATCH_ROWS = 5_000
SUM_MODULUS = 1_000_003
"""Sums are of remainders: a sum of times is more than 64 bits hold."""


class Table(NamedTuple):
    """A table that both stores have."""

    name: str
    key: tuple[str, ...]
    """Its primary key; texts are in the order of their bytes."""
    is_single: bool = False
    """Whether it has one row, which a new ledger has too."""


_CALL_USAGE = ("begins_at", "engine", "model", "tool_name", "outcome")
_REQUEST_USAGE = ("begins_at", "engine", "model")

TABLES = (
    *(Table(name, ("position",)) for name in ("tool_call_log", "cost_log", "control_log", "sessions", "session_log")),
    *(Table(name, ("position",)) for name in ("gap_log", "removal_log", "erasure_log", "hold_log")),
    *(Table(name, ("id",)) for name in ("query_log", "pruned")),
    Table("session_labels", ("session_id", "recorded_by", "key")),
    Table("producers", ("id", "recorded_by")),
    Table("producer_gaps", ("producer_id", "recorded_by", "first_sequence")),
    Table("refusals", ("recorded_by", "producer_id", "code", "minute")),
    Table("recorders", ("recorded_by",)),
    *(Table(f"tool_call_usage_{step}", _CALL_USAGE) for step in ("hourly", "daily", "32d")),
    *(Table(f"request_usage_{step}", _REQUEST_USAGE) for step in ("hourly", "daily", "32d")),
    Table("session_usage", ("session_id", "recorded_by", "engine", "model")),
    Table("named_usage", ("name", "step", "begins_at", "value")),
    Table("session_traits", ("session_id", "recorded_by", "name", "value")),
    Table("relabelled", ("id",)),
    *(Table(name, ("id",), is_single=True) for name in ("ledger_clock", "erasing", "session_usage_summed")),
)


class Tables(Protocol):
    """A store's tables, while nobody else writes to them.

    Any call may raise StoreRefused, StoreUnavailable or DiskFull.
    """

    def columns(self, table: Table) -> list[str]:
        """The names of a table's columns, sorted."""
        ...

    def rows(self, table: Table, columns: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Any]:
        """Rows behind a key, in the order of keys; from the first where it is None."""
        ...

    def last_key(self, table: Table) -> Sequence[Any] | None:
        """The key of the last row."""
        ...

    def add(self, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, instead: bool) -> None:
        """Adds rows in one transaction, which is synced. instead: in the place of all that are there."""
        ...

    def sums(self, table: Table, columns: Sequence[str]) -> list[int]:
        """The number of rows, and of each column a sum: of numbers their remainders, of texts and bytes the lengths."""
        ...


@dataclass(slots=True)
class Copied:
    """How far it is."""

    table: str
    rows: int
    """Of all tables, in this run."""


def is_empty(target: Tables) -> bool:
    """Whether a ledger has no rows, save for those that a new one has."""
    return all(table.is_single or target.last_key(table) is None for table in TABLES)


def copy_tables(source: Tables, target: Tables, on_progress: Callable[[Copied], None]) -> None:
    """Copies what is not there yet.

    Raises:
        StoreRefused: a row cannot be kept in the target.
    """
    copied = 0
    for table in TABLES:
        columns = source.columns(table)
        if columns != target.columns(table):
            raise StoreRefused(f"the table {table.name} has other columns there: use one version of audit-svc for both")
        places = [columns.index(name) for name in table.key]
        after = None if table.is_single else target.last_key(table)
        while rows := source.rows(table, columns, after, BATCH_ROWS):
            target.add(table, columns, rows, instead=table.is_single)
            after = [rows[-1][place] for place in places]
            copied += len(rows)
            on_progress(Copied(table.name, copied))


def differences(source: Tables, target: Tables) -> list[str]:
    """The tables of which counts or sums are not alike, each with what is."""
    found = []
    for table in TABLES:
        columns = source.columns(table)
        said, is_there = source.sums(table, columns), target.sums(table, columns)
        if said != is_there:
            names = ["rows", *columns]
            which = [name for name, one, other in zip(names, said, is_there, strict=True) if one != other]
            found.append(f"{table.name} ({', '.join(which)})")
    return found
