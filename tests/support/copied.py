"""A ledger of SQLite, table by table, in PostgreSQL's schema: so that both are asked about the same rows."""

from typing import Any

import apsw

from audit_svc.postgres.open.connection import Connection

TABLES = (
    *("tool_call_log", "cost_log", "control_log", "sessions", "session_labels", "producers", "producer_gaps"),
    *("refusals", "recorders", "query_log", "pruned", "session_usage", "session_usage_summed"),
    *("named_usage", "session_traits", "relabelled"),
    *(f"{kind}_usage_{step}" for kind in ("tool_call", "request") for step in ("hourly", "daily", "32d")),
)
"""What questions read."""


def copy_tables(source: apsw.Connection, target: Connection) -> None:
    """Makes what questions read in target what it is in source."""
    raw = target.raw
    with raw.transaction():
        raw.execute("; ".join(f"DELETE FROM {table}" for table in TABLES).encode())
        for table in TABLES:
            names = [str(row[1]) for row in source.execute(f"PRAGMA table_info({table})")]
            copy = f"COPY {table} ({', '.join(names)}) FROM STDIN".encode()
            with raw.cursor() as cursor, cursor.copy(copy) as rows:
                for row in source.execute(f"SELECT {', '.join(names)} FROM {table}"):
                    values: Any = row
                    rows.write_row(values)
