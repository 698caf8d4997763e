"""What the questions need of a database, and in what databases differ.

The SQL is written as SQLite takes it: `?` for values, and hints for indexes (INDEXED BY, NOT INDEXED), which a database
without hints leaves out. Where more than the spelling differs, it is in a Dialect.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from audit_svc.ledger.valid_rows import Values

if TYPE_CHECKING:
    from audit_svc.ledger.query import Query
    from audit_svc.sql.read.listing import Condition, Statement
    from audit_svc.sql.read.walks import OtherWay


@dataclass(frozen=True)
class Dialect:
    """In what databases differ. Templates have {} for an expression."""

    without_index: str
    """Before a column: no index of it is used. Empty where planners need no such hint."""
    in_few: str
    """That a column, the first, has a value of a subquery with few rows, the second."""
    among: str
    """That the first, a row of values, is one of a subquery's, the second, which is read once for all rows that are
    looked at. Empty where a look at an index for each row is as quick."""
    one_of_walks: str
    """A part of a UNION ALL: a statement, and the order and the limit of the whole. No part is read further."""
    gathered: str
    """An aggregate: whole numbers, with commas between."""
    texts: str
    """An aggregate: texts, with commas between."""
    labels: str
    """A subquery over l, session_labels, that fetch() makes a dictionary of; {} is its condition."""
    count_sessions: str
    """A query: about how many rows session_usage has."""
    whole_sum: Callable[[str], str]
    """SQL for the exact sum of a value of 0 or more, which stays at MAX_SUM; null of no rows."""
    histograms: tuple[str, str]
    """Two aggregates over r.durations, which histogram.merged() takes, of rows whose counts have the same bytes."""
    apart: str
    """An expression: rows for which it differs have histograms of their own, which would else not fit in a value."""
    apart_sessions: str
    """The same for the rows of session_usage."""
    apart_named: str
    """The same for the rows of named_usage of one value."""


class Connection(Protocol):
    """What runs SQL."""

    def execute(self, sql: str, arguments: Sequence[Any] = ..., /) -> Any:
        """A cursor, which has fetchone() and fetchall(), and can be gone through."""
        ...


class Database(Connection, Protocol):
    """A connection that questions are put to."""

    @property
    def dialect(self) -> Dialect:
        """Of the database."""
        ...

    def fetch(self, columns: Sequence[str], statement: "Statement") -> list[Values]:
        """All rows of a statement in their order.

        columns: expressions over the statement's columns: texts, whole numbers, NULL, or Dialect.labels.
        statement: where it has an order it has a LIMIT too.
        """
        ...

    def moment(self) -> AbstractContextManager[Any]:
        """What is read in the body is of one moment."""
        ...

    def by_text(self, query: "Query", conditions: Sequence["Condition"]) -> "OtherWay | None":
        """How tool calls with the text that a query asks for are found by an index; None where none helps.

        conditions: all that is asked of a row.
        """
        ...
