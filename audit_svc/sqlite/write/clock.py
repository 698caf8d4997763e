"""The ledger's clock as the database remembers it, and the rows whose time it contradicts."""

from audit_svc.ledger.batch import ValidRows
from audit_svc.ledger.clock import MAX_AHEAD_MS, SeenClock
from audit_svc.sqlite.open.connection import Connection

KEEP_MS = 600_000
"""The time is written this often: each time would be a page more in each commit."""


class LedgerClock(SeenClock):
    """Remembered over restarts. It belongs to the thread that writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        found = connection.execute("SELECT seen_at FROM ledger_clock").fetchone()
        self._kept_ms = found[0] if found else 0
        super().__init__(found[0] if found else None)

    def confirm(self) -> None:
        """Believes the clock as it is. In a transaction."""
        super().confirm()
        if abs(self.seen_ms - self._kept_ms) >= KEEP_MS:
            self._keep()

    def _keep(self) -> None:
        self._connection.execute("INSERT OR REPLACE INTO ledger_clock VALUES (1, ?)", (self.seen_ms,))
        self._kept_ms = self.seen_ms


def mark_suspects(
    connection: Connection, table: str, rows: ValidRows, time: int, mark: int, received_ms: int, recorded_by: str
) -> int:
    """Marks the rows whose time cannot be right if the ledger's is, and returns how many. They are in table already.

    time: the place of the time in a row. mark: the time that the ledger is pruned to. received_ms: when they came.
    recorded_by: from whom.
    """
    latest = received_ms + MAX_AHEAD_MS
    suspect = [(received_ms, row[0], recorded_by) for row in rows.rows() if row[time] < mark or row[time] > latest]
    sql = f"UPDATE {table} SET clock_suspect = ? WHERE id = ? AND recorded_by = ?"  # noqa: S608 - a name of ours
    connection.executemany(sql, suspect)
    return len(suspect)
