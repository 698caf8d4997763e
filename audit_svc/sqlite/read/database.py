"""SQLite as questions see it."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from audit_svc.ledger.query import Query
from audit_svc.ledger.valid_rows import Values
from audit_svc.sql.database import Dialect
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import Condition, Statement
from audit_svc.sqlite.open.connection import Connection
from service_kit.bounds import MAX_SUM

if TYPE_CHECKING:
    from audit_svc.sql.read.walks import OtherWay

BLOBS_AT_ONCE = 1024
"""A row of an answer has at most so many histograms, some 500 kB: a group of all time would not fit in a value."""

_WIDTH = "unicode(substr(r.durations, 1, 1))"


def sum_sql(value: str) -> str:
    """SQL for the exact sum of a value of 0 or more, which stays at MAX_SUM; null of no rows.

    sum() would raise there. What passes it in a multiplication or an addition is a REAL, which min() leaves out.
    """
    return f"min(sum(({value}) >> 31) * 2147483648 + sum(({value}) & 2147483647), {MAX_SUM})"


SQLITE = Dialect(
    without_index="+",
    in_few="{} IN {}",
    among="",
    one_of_walks="{}",  # SQLite merges them
    gathered="group_concat({})",
    texts="group_concat({})",
    labels="json((SELECT json_group_object(key, value) FROM session_labels l WHERE {}))",
    count_sessions="SELECT max(rowid) FROM session_usage",
    whole_sum=sum_sql,
    # A text of SQLite may hold any bytes. The aggregates of a statement see its rows in one order.
    histograms=(
        f"group_concat((length(r.durations) - 1) / {_WIDTH} * 5, 's') || 's'",
        "CAST(substr(r.durations, 1, 1) || group_concat(substr(r.durations, 2), '') AS BLOB)",
    ),
    apart=f"{_WIDTH}, r.rowid / {BLOBS_AT_ONCE}",
    apart_sessions=f"{_WIDTH}, r.rowid / {BLOBS_AT_ONCE}",
    apart_named=_WIDTH,
)


class SqliteDatabase:
    """A connection that questions are put to (the Database protocol)."""

    dialect = SQLITE

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.execute = connection.execute

    def fetch(self, columns: Sequence[str], statement: Statement) -> list[Values]:
        """All rows of a statement in their order, in one step of SQLite.

        Each step of a statement waits for Python's lock when it is done, which the writer and the event loop want too.
        SQLite may not sort what is only gathered: where a statement has an order it has a LIMIT too.
        """
        sql = f"SELECT json_group_array(json_array({', '.join(columns)})) FROM ({statement.sql}) AS found"  # noqa: S608 - names of ours
        ((rows,),) = self.execute(sql, statement.arguments)
        found: list[Values] = json.loads(rows)
        return found

    def moment(self) -> AbstractContextManager[Any]:
        """What is read in the body is of one moment."""
        return self.connection

    def by_text(self, query: Query, conditions: Sequence[Condition]) -> "OtherWay | None":
        """By the index of trigrams; None for a text that has none."""
        from audit_svc.sqlite.text.text_index import trigrams_of  # most questions ask for no text
        from audit_svc.sqlite.text.text_search import TextSearch

        trigrams = trigrams_of(listing.lower(query.filter.contains))
        if not trigrams:
            return None
        return lambda position, size, give_up: TextSearch(
            self.connection, trigrams, conditions, query.filter.from_ms or 0, size, give_up
        ).rows(position)
