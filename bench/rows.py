"""Rows as gateways make them, and the baseline: the same tables in standard-library sqlite3, in process."""

import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import apsw
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from uuid_utils import uuid7

from audit_svc.ledger.tables import TOOL_CALL_COLUMNS
from audit_svc.sqlite.open import migrate

ROWS_A_TRANSACTION = 1000

Values = tuple[str | int | None, ...]

_ROWS_A_SESSION = 40
_SESSIONS_AT_A_TIME = 32
_COLUMNS = [column.name for column in TOOL_CALL_COLUMNS]
NAMES = _COLUMNS[: _COLUMNS.index("trace_id") + 1]
"""What values_of() gives; who acted and what decided, which comes after it, is unset in these rows."""
_INSERT = f"INSERT INTO tool_call_log ({', '.join(NAMES)}) VALUES ({','.join('?' * len(NAMES))})"
_CALLS = (
    ("read", "path: docs/architecture.md, offset: 0, limit: 2000"),
    ("bash", "command: git log --oneline -20, timeout_seconds: 60"),
    ("webfetch", "url: https://example.com/manual/, max_characters: 20000"),
)


def make_rows(count: int) -> Iterator[audit_pb2.AuditRow]:
    """Tool calls of about 230 bytes each, of many sessions at a time; one in twenty failed."""
    chance = random.Random(7)
    sessions = [(str(uuid7()), str(uuid7())) for _ in range(_SESSIONS_AT_A_TIME)]
    for number in range(count):
        if number % _ROWS_A_SESSION == 0:
            sessions[chance.randrange(_SESSIONS_AT_A_TIME)] = str(uuid7()), str(uuid7())
        session, turn = chance.choice(sessions)
        tool, summary = chance.choice(_CALLS)
        failed = chance.random() < 0.05
        yield audit_pb2.AuditRow(
            id=str(uuid7()),
            session_id=session,
            turn_id=turn,
            engine="ollama",
            model="qwen3:4b",
            tool_name=tool,
            provider_call_id=f"call_{chance.randrange(2**32):08x}",
            args_summary=summary,
            duration_ms=chance.randrange(2000),
            exit_code=int(failed) if tool == "bash" else None,
            http_status=200 if tool == "webfetch" else None,
            error="the file does not exist" if failed else None,
            result_bytes=chance.randrange(50_000),
            created_at_ms=time.time_ns() // 1_000_000,
            outcome=common_pb2.OUTCOME_FAILED if failed else common_pb2.OUTCOME_SUCCEEDED,
            redaction_version=1,
        )


def values_of(row: audit_pb2.AuditRow) -> Values:
    """row as it goes into the table."""
    return (
        row.id,
        row.session_id,
        row.engine,
        row.tool_name,
        row.args_summary,
        row.duration_ms,
        row.exit_code if row.HasField("exit_code") else None,
        row.http_status if row.HasField("http_status") else None,
        row.error if row.HasField("error") else None,
        row.result_truncated,
        row.result_bytes,
        row.created_at_ms,
        common_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_").lower(),
        row.model,
        row.provider_call_id,
        row.turn_id,
        row.redaction_version,
        row.times_observed,
        row.shadow,
        row.trace_id,
    )


class Baseline:
    """The ledger's schema in standard-library sqlite3: WAL, all other pragmas as they come."""

    def __init__(self, path: Path, synchronous: Literal["NORMAL", "FULL"] = "FULL") -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA synchronous = {synchronous}")
        for sql in _schema():
            self._connection.execute(sql)

    def insert(self, values: Values) -> None:
        """One row as a transaction of its own, by a statement that the connection has prepared."""
        self._connection.execute(_INSERT, values)

    def insert_many(self, rows: Sequence[Values]) -> float:
        """Rows in transactions of 1,000; returns the rows a second."""
        started = time.perf_counter()
        for first in range(0, len(rows), ROWS_A_TRANSACTION):
            self._connection.execute("BEGIN")
            self._connection.executemany(_INSERT, rows[first : first + ROWS_A_TRANSACTION])
            self._connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - started)

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()


def _schema() -> list[str]:
    """The statements that make the ledger's tables and indexes as they are after all migrations.

    Without its index of texts, which is filled in idle time and needs a newer SQLite than Python may have.
    """
    ledger = apsw.Connection(":memory:")
    migrate.up(ledger, migrate.load_migrations())
    return [
        sql
        for (sql,) in ledger.execute(
            "SELECT sql FROM sqlite_schema JOIN pragma_table_list AS tables ON tables.name = tbl_name "
            "WHERE sql IS NOT NULL AND tables.type = 'table' ORDER BY sqlite_schema.rowid"
        )
    ]
