"""Pruning of the file: what SQLite removes in its own way, and prunes that no service does."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from audit_svc.ledger.clock import wall_ms
from audit_svc.ledger.pruning import Progress
from audit_svc.ledger.side_by_side import side_by_side
from audit_svc.sql.care import prune as shared
from audit_svc.sql.care.prune import reset_mark
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.free_pages import give_space_back
from audit_svc.sqlite.open.connection import Connection, transaction
from audit_svc.sqlite.open.files import writing
from audit_svc.sqlite.read.database import sum_sql
from audit_svc.sqlite.text.text_index import forget_rows, forget_zones
from audit_svc.sqlite.usage.session_sums import forget_sessions

_TABLES = {
    "tool_call": ("tool_call_log", "position"),
    "model_request": ("cost_log", "position"),
    "session": ("session_log", "position"),
    "query": ("query_log", "id"),
    "gap": ("gap_log", "position"),
}


def prune_file(path: Path, before_ms: int, by: str, *, confirm_clock: bool = False) -> Iterator[Progress]:
    """Prunes a ledger that no service has open, and tells after each batch how far it is.

    Raises:
        ClockJumped: the clock shows a time that must be confirmed.
        StoreRefused: a service has it open, or it is no ledger of this version of the code.
        DiskFull: the disk has no room for a batch.
    """
    with writing(path) as connection:
        prune = Prune(before_ms, by, LedgerClock(connection), confirm_clock)
        done = False
        while not done:
            with transaction(connection):
                progress = prune.step(connection)
            done = progress.done
            yield progress
        connection.pragma("wal_checkpoint(TRUNCATE)")


def reset_mark_of_file(path: Path, before_ms: int, by: str) -> Progress:
    """reset_mark() for a ledger that no service has open. Raises as prune_file()."""
    with writing(path) as connection, transaction(connection):
        return reset_mark(connection, before_ms, by)


def count(connection: Connection, before_ms: int) -> Progress:
    """What a prune would remove now."""
    return shared.count(connection, before_ms, sum_sql)


class Prune(shared.Prune):
    """One prune of the file."""

    def _remove(self, connection: Any, kind: str, positions: Sequence[int]) -> None:
        table, number = _TABLES[kind]
        delete = f"DELETE FROM {table} WHERE {number} IN (SELECT value FROM json_each(?))"  # noqa: S608 - names of ours
        if kind == "tool_call":
            delete += " RETURNING position, args_summary"
        rows: list[Any] = connection.execute(delete, (json.dumps(positions),)).fetchall()
        if kind == "tool_call":
            forget_rows(connection, rows)
        now_ms = wall_ms()
        connection.executemany(
            "INSERT INTO removal_log (removed_kind, first_position, last_position, pruned_before, pruned_by, "
            "recorded_at) VALUES (?, ?, ?, ?, ?, ?)",
            [(kind, first, last, self.before_ms, self.by, now_ms) for first, last in side_by_side(sorted(positions))],
        )

    def _remove_texts(self, connection: Any) -> bool:
        forget_zones(connection, self.before_ms)
        return True

    def _forget_sessions(self, connection: Any) -> bool:
        return forget_sessions(connection, self.before_ms, shared.BATCH_ROWS)

    def _give_space_back(self, connection: Any) -> bool:
        return give_space_back(connection)
