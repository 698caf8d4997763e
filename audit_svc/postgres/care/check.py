"""Checks a ledger in PostgreSQL in one snapshot, beside running services too."""

from collections.abc import Iterator

import psycopg

from audit_svc.ledger.progress import OnProgress
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, transaction
from audit_svc.postgres.text.trigrams import INDEX, index_state
from audit_svc.postgres.usage.recount import rollup_differences
from audit_svc.sql.care.check import Finding, comparable_from, rollup_findings, schema_finding, shared_findings

_NO_WAL = "not looked at: PostgreSQL keeps its own log"
_NO_AMCHECK = (
    "not looked at: that needs PostgreSQL's extension amcheck, and a user who may call bt_index_check; pg_amcheck "
    "looks at all of a database"
)
_MAY_CHECK = (
    "SELECT coalesce(has_function_privilege(to_regprocedure('bt_index_check(regclass,boolean)'), 'EXECUTE'), false)"
)
_INDEXES = (
    "SELECT c.oid, c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_am a ON a.oid = c.relam "
    "WHERE c.relnamespace = 'public'::regnamespace AND a.amname = 'btree' AND i.indisvalid ORDER BY c.relname"
)


def check(connection: Connection, on_progress: OnProgress) -> Iterator[Finding]:
    """Gives each finding as it is made, of all that NAMES names. In the open transaction, which sees one moment."""
    yield Finding("wal", "note", _NO_WAL)
    yield from _integrity(connection, on_progress)
    schema = schema_finding(lambda: migrate.pending(connection, migrate.load_migrations()))
    yield schema
    if schema.state != "ok":
        return
    yield from shared_findings(connection)
    yield from rollup_findings(rollup_differences(connection, comparable_from(connection), on_progress))
    yield _texts(connection)


def _integrity(connection: Connection, on_progress: OnProgress) -> Iterator[Finding]:
    """Whether each index has all rows of its table, which reads both."""
    ((may,),) = connection.execute(_MAY_CHECK)
    if not may:
        yield Finding("integrity", "note", _NO_AMCHECK)
        return
    wrong = False
    for oid, name in connection.execute(_INDEXES).fetchall():
        on_progress(0, 0)
        try:
            with transaction(connection):
                connection.execute("SELECT bt_index_check(?::bigint::oid::regclass, true)", (oid,))
        except (psycopg.errors.IndexCorrupted, psycopg.errors.DataCorrupted, psycopg.errors.InternalError_) as error:
            wrong = True
            yield Finding("integrity", "wrong", f"{name}: {error.diag.message_primary}")
    if not wrong:
        yield Finding("integrity", "ok", "")


def _texts(connection: Connection) -> Finding:
    """The database keeps the index with the rows; it may be unfinished, or not there."""
    match index_state(connection):
        case "whole":
            return Finding("texts", "ok", "")
        case "unfinished":
            return Finding("texts", "wrong", f"their index {INDEX} was not finished: run rebuild-texts as its owner")
        case _:
            return Finding("texts", "note", "there is no index of them: texts are looked for row by row")
