"""The tables, made and brought up to date at start, under an advisory lock: gateways that start together take turns."""

from pathlib import Path
from typing import Any

import psycopg
import structlog
from psycopg import sql

from gateway_svc.errors import SettingsError

FOLDER = Path(__file__).with_name("migrations")
LOCK = 0x6F6E7265, 0
"""The advisory lock of who migrates; gateways hold (LOCK[0], their number)."""
LEDGER_TABLES = ("tool_call_log", "ledger_writer")
"""What a database with one of these is."""

log = structlog.get_logger(__name__)


def migrate(connection: psycopg.Connection[Any]) -> None:
    """Brings the tables to this version; everything or nothing.

    Raises:
        SettingsError: the database is a ledger's, or of a newer version.
        psycopg.Error: it cannot be used.
    """
    files = {int(path.name[:4]): path for path in sorted(FOLDER.glob("*.up.sql"))}
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", LOCK)
        for name in LEDGER_TABLES:
            if _has(connection, name):
                raise SettingsError(
                    f"GATEWAY_SESSIONS: the database is a ledger's (it has the table {name}), and sessions hold "
                    "content, which never lies beside the ledger: create a database of its own, and name that"
                )
        applied = {0}
        if _has(connection, "conversation_migrations"):
            applied |= {row[0] for row in connection.execute("SELECT version FROM conversation_migrations").fetchall()}
        else:
            connection.execute(
                "CREATE TABLE conversation_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                "applied_at timestamptz NOT NULL DEFAULT now())"
            )
        if (at := max(applied)) > max(files):
            raise SettingsError(
                f"GATEWAY_SESSIONS: the database is of a newer version ({at}; this gateway knows {max(files)}): "
                "run the newer gateway, or name another database"
            )
        for version in sorted(files.keys() - applied):
            connection.execute(sql.SQL(files[version].read_text(encoding="utf-8")))
            name = files[version].name.removesuffix(".up.sql")
            connection.execute("INSERT INTO conversation_migrations VALUES (%s, %s)", (version, name))
            log.info("sessions.migrated", version=version, name=name)


def _has(connection: psycopg.Connection[Any], table: str) -> bool:
    found = connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()
    return bool(found and found[0])
