"""Checks a ledger in one snapshot, beside a running service too."""

from collections.abc import Iterator
from pathlib import Path

import apsw

from audit_svc.ledger.progress import OnProgress
from audit_svc.sql.care.check import Finding, comparable_from, rollup_findings, schema_finding, shared_findings
from audit_svc.sql.usage.named_recount import named_differences, trait_differences
from audit_svc.sqlite.care.backup import call_while_it_runs
from audit_svc.sqlite.care.wal import unread
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.open.files import reading
from audit_svc.sqlite.read.database import SQLITE
from audit_svc.sqlite.text.text_index import text_index_differences
from audit_svc.sqlite.usage.recount import rollup_differences
from audit_svc.sqlite.usage.session_sums import session_differences

MAX_PROBLEMS = 20
"""How many problems of one kind are reported."""


def check(path: Path, on_progress: OnProgress) -> Iterator[Finding]:
    """Checks the ledger or the backup at path and gives each finding as it is made.

    Raises:
        StoreRefused: there is no ledger that could be checked.
    """
    found = FoundDatabase(path)
    with reading(path, exact_schema=False) as connection:
        call_while_it_runs(connection, on_progress)
        yield _wal(found, on_progress)
        connection.execute("BEGIN")
        yield from _integrity(connection)
        schema = schema_finding(lambda: migrate.pending(connection, migrate.load_migrations()))
        yield schema
        if schema.state != "ok":
            return
        yield from shared_findings(connection)
        connection.execute("COMMIT")  # the rollups are looked at in a transaction of their own
        yield from rollup_findings(rollups_off(connection))
        connection.execute("BEGIN")
        yield _texts(connection, on_progress)


def _wal(found: FoundDatabase, on_progress: OnProgress) -> Finding:
    if found.unseen:
        return Finding("wal", "note", found.unseen)
    if found.state != "with a WAL":
        return Finding("wal", "ok", "")
    left = unread(found.beside("-wal"), on_progress)
    if left.is_header:
        return Finding("wal", "wrong", "the header of the -wal is damaged, so nothing of it is read")
    if not left.commits:  # a transaction that was rolled back leaves pages too
        return Finding("wal", "ok", "")
    told = f"{left.pages} pages of the -wal ({left.commits} commits) are damaged or behind one that is, and not read"
    # Each commit is synced, so that a power cut leaves the last alone unfinished, of which nobody was told.
    return Finding("wal", "wrong" if left.commits > 1 else "note", told)


def _integrity(connection: apsw.Connection) -> Iterator[Finding]:
    problems = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})")]
    if problems == ["ok"]:
        yield Finding("integrity", "ok", "")
        return
    for problem in problems:
        yield Finding("integrity", "wrong", " ".join(problem.split()))


def rollups_off(connection: apsw.Connection) -> dict[str, int]:
    """How many rows of each rollup are not what the rows say. No transaction is open."""
    from_ms = comparable_from(connection)
    # It makes temporary tables, which a connection that answers queries cannot: in memory, since no folder may be
    # one that can be written.
    connection.pragma("query_only", False)
    connection.pragma("temp_store", "memory")
    try:
        differences = rollup_differences(connection, from_ms)
        return {
            **differences,
            "session_usage": session_differences(connection),
            "named_usage": named_differences(connection, SQLITE),
            "session_traits": trait_differences(connection, SQLITE),
        }
    finally:
        connection.pragma("query_only", True)


def texts_off(connection: apsw.Connection, on_progress: OnProgress) -> int:
    """How many parts of the index of texts lack something that their rows have."""
    wrong = 0
    for lacks in text_index_differences(connection):
        on_progress(0, 0)
        wrong += lacks
    return wrong


def _texts(connection: apsw.Connection, on_progress: OnProgress) -> Finding:
    if wrong := texts_off(connection, on_progress):
        return Finding("texts", "wrong", f"{wrong} parts of their index lack what their rows have: run rebuild-texts")
    return Finding("texts", "ok", "")
