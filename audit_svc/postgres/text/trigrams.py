"""Calls whose args_summary has a text, by an index of trigrams, where the database has pg_trgm.

Without it, or for a text without a trigram, rows are looked at one by one along the listing's walk, in windows that
end: pages are short then. With it, a text that turns out to be rare on the walk is looked up in the index, for a
bounded time; one that is frequent is met soon enough on the walk.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psycopg

from audit_svc.ledger.valid_rows import Values
from audit_svc.postgres.open.connection import Connection, transaction
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import CALL_COLUMNS, Condition
from service_kit.paging import Position

if TYPE_CHECKING:
    from audit_svc.postgres.read.database import PostgresDatabase

INDEX = "idx_tool_call_log_args"
MAKE_INDEX = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {INDEX} ON tool_call_log USING gin (lower(args_summary) gin_trgm_ops)",
)
"""What the owner of the database runs to have the index, beside a service too. No migration does: with it, a ledger
takes a quarter of the rows a second."""
SEARCH_SECONDS = 0.3
"""The longest look into the index: a text of frequent trigrams is gone on with on the walk for a while."""

_TRIGRAM = re.compile("[a-z0-9]{3}")
"""What pg_trgm takes three of, in a database of any locale."""
_INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(?)"
_BY_BITMAP = ("SET LOCAL enable_seqscan = off", "SET LOCAL enable_indexscan = off")


def has_index(connection: Connection) -> bool:
    """Whether the database has the index of texts, whole."""
    return index_state(connection) == "whole"


def index_state(connection: Connection) -> Literal["whole", "unfinished", "missing"]:
    """Of the index of texts."""
    found = connection.execute(_INDEX, (INDEX,)).fetchone()
    return "missing" if found is None else "whole" if found[0] else "unfinished"


def has_trigram(text: str) -> bool:
    """Whether the index helps to find a text."""
    return _TRIGRAM.search(listing.lower(text)) is not None


@dataclass
class TextSearch:
    """Looks for the rows of the listing for which conditions hold, one of which is that of the text."""

    database: "PostgresDatabase"
    text: str
    conditions: Sequence[Condition]

    def rows(self, position: Position, size: int, give_up: float) -> tuple[list[Values], Position | None]:
        """The first size rows after position, and where to go on: where it began, if that took too long."""
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", listing.lower(self.text)) + "%"
        sql, arguments = listing.select(
            f"SELECT {CALL_COLUMNS} FROM tool_call_log",  # noqa: S608 - names of ours
            [Condition("lower(args_summary) LIKE ?", (pattern,)), *self.conditions, *listing.after_key(position)],
        )
        began = time.monotonic()
        raw = self.database.connection.raw
        try:
            with transaction(self.database.connection):
                raw.execute(f"SET LOCAL statement_timeout = {max(1, round(1000 * SEARCH_SECONDS))}")
                for setting in _BY_BITMAP:
                    raw.execute(setting)
                sql = f"{sql} ORDER BY created_at DESC, position DESC LIMIT {size}"
                return self.database.execute(sql, arguments).fetchall(), None
        except psycopg.errors.QueryCanceled:
            if time.monotonic() - began < SEARCH_SECONDS:  # somebody else's
                raise
            return [], position
