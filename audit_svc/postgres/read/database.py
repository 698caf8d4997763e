"""PostgreSQL as questions see it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from audit_svc.ledger.query import Query
from audit_svc.ledger.valid_rows import Values
from audit_svc.postgres.open.connection import Connection
from audit_svc.sql.database import Dialect
from audit_svc.sql.read.listing import Condition, Statement
from service_kit.bounds import MAX_SUM

if TYPE_CHECKING:
    from audit_svc.sql.read.walks import OtherWay

PARTS = 64
"""The histograms of a group's sessions come in as many parts: all of them might not fit in a value."""

_WIDTH = "get_byte(r.durations, 0)"
_IN_NO_ROW = "\1" * 4097
"""A text that no column holds: names have no control characters, and no other text has as many bytes."""


def sum_sql(value: str) -> str:
    """SQL for the exact sum of a value of 0 or more, which stays at MAX_SUM; null of no rows."""
    return f"CASE WHEN sum({value}) > {MAX_SUM} THEN {MAX_SUM} ELSE sum({value}) END"


POSTGRES = Dialect(
    without_index="",
    # By the index of the column, for each value: a join might go through all rows in the order of the listing.
    in_few="{} = ANY (ARRAY{})",
    # IS TRUE, or it would be made a join, in another order than the listing's.
    among="(({} IN ({})) IS TRUE)",
    one_of_walks="({} ORDER BY {} LIMIT {})",
    gathered="string_agg(CAST({} AS text), ',')",
    texts="string_agg({}, ',')",
    labels="(SELECT coalesce(json_object_agg(key, value), '{{}}') FROM session_labels l WHERE {})",
    # The planner's estimate, which is none in a small or new table.
    count_sessions="SELECT greatest((SELECT reltuples FROM pg_class WHERE oid = 'session_usage'::regclass), "
    "(SELECT count(*) FROM (SELECT FROM session_usage LIMIT 1000) AS few))::bigint",
    whole_sum=sum_sql,
    # The aggregates of a statement see its rows in one order.
    histograms=(
        f"string_agg(CAST((length(r.durations) - 1) / {_WIDTH} * 5 AS text), 's') || 's'",
        f"set_byte('\\x00', 0, {_WIDTH}) || string_agg(substr(r.durations, 2), '')",
    ),
    apart=_WIDTH,
    apart_sessions=f"{_WIDTH}, r.earliest % {PARTS}",
    apart_named=_WIDTH,
)


class PostgresDatabase:
    """A connection that questions are put to (the Database protocol)."""

    dialect = POSTGRES

    def __init__(self, connection: Connection, *, has_trigrams: bool = False) -> None:
        """has_trigrams: whether the database has the index of texts."""
        self.connection = connection
        self.has_trigrams = has_trigrams

    def execute(self, sql: str, arguments: Sequence[Any] = ()) -> Any:
        """A cursor of the statement's rows."""
        if any(isinstance(argument, str) and "\0" in argument for argument in arguments):  # which PostgreSQL takes none
            arguments = [_IN_NO_ROW if isinstance(one, str) and "\0" in one else one for one in arguments]
        return self.connection.execute(sql, arguments)

    def fetch(self, columns: Sequence[str], statement: Statement) -> list[Values]:
        """All rows of a statement in their order."""
        sql = statement.sql
        if not all(map(str.isidentifier, columns)):  # else they are the statement's own
            sql = f"SELECT {', '.join(columns)} FROM ({sql}) AS found"  # noqa: S608 - names of ours
        rows: list[Values] = self.execute(sql, statement.arguments).fetchall()
        return rows

    def moment(self) -> AbstractContextManager[Any]:
        """What is read in the body is of one moment."""
        return self.connection.raw.transaction()

    def by_text(self, query: Query, conditions: Sequence[Condition]) -> "OtherWay | None":
        """By the index of trigrams; None where there is none, and for a text that has no trigram."""
        from audit_svc.postgres.text.trigrams import TextSearch, has_trigram  # most questions ask for no text

        if not self.has_trigrams or not has_trigram(query.filter.contains):
            return None
        return TextSearch(self, query.filter.contains, conditions).rows
