"""The ledger's clock as the database remembers it, and the rows whose time it contradicts."""

from dataclasses import dataclass

from audit_svc.ledger.clock import SeenClock
from audit_svc.ledger.valid_rows import ValidRows
from audit_svc.sql.writing import Connection

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
        self._connection.execute(
            "INSERT INTO ledger_clock VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
            (self.seen_ms,),
        )
        self._kept_ms = self.seen_ms


@dataclass(slots=True)
class Bounds:
    """The times that the rows of a batch may have begun at, if the ledger's clock is right."""

    earliest_ms: int
    """The time that the ledger is pruned to."""
    latest_ms: int
    received_ms: int
    """When the batch came: what stands in clock_suspect of a row beyond the bounds."""
    suspects: int = 0
    """How many rows were marked."""

    def are_beyond(self, time_ms: int) -> bool:
        """Whether a time is beyond them."""
        return time_ms < self.earliest_ms or time_ms > self.latest_ms


def mark_suspects(
    connection: Connection, table: str, rows: ValidRows, time: int, bounds: Bounds, recorded_by: str
) -> None:
    """Marks the rows whose time is beyond the bounds. They are in table already.

    time: the place of the time in a row. recorded_by: who sent them.
    """
    suspect = [(bounds.received_ms, row[0], recorded_by) for row in rows.rows() if bounds.are_beyond(row[time])]
    sql = f"UPDATE {table} SET clock_suspect = ? WHERE id = ? AND recorded_by = ?"  # noqa: S608 - a name of ours
    connection.executemany(sql, suspect)
    bounds.suspects += len(suspect)
