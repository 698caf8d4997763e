"""The migrations of PostgreSQL's schema, applied under an advisory lock: replicas that start together take turns.

Each file runs in one transaction with its row in schema_migrations. What the database claims is checked against its
catalogs: what the migrations make must be there as they make it. What is there besides, such as an index of the
operator's, is the operator's matter.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from audit_svc.errors import MigrationRefused
from audit_svc.ledger.copying import UNFINISHED
from audit_svc.ledger.migrations import Applied, Migration, Status, migrations_in, statuses_of, waiting_of
from audit_svc.postgres.open.connection import Connection, transaction, translated

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
KNOWN = MIGRATIONS / "schema.json"
"""What all migrations make, as schema_of() tells it. A test says what it must hold."""

LOCK = 0x6F6E_7265_6331
"""The advisory lock of whoever migrates: a number that nobody else is likely to take."""

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    bigint PRIMARY KEY,
    name       text COLLATE "C" NOT NULL,
    checksum   text COLLATE "C" NOT NULL,
    applied_at bigint NOT NULL
);
"""
_COLUMNS = """
SELECT 'column ' || c.relname || '.' || a.attname,
    format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
    || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '') || coalesce(' COLLATE ' || o.collname, '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_collation o ON o.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""
_CONSTRAINTS = """
SELECT 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'c')
"""
_INDEXES = """
SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""
_FUNCTIONS = """
SELECT 'function ' || p.oid::regprocedure, md5(p.prosrc) || CASE WHEN p.prosecdef THEN ' SECURITY DEFINER' ELSE '' END
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'public'::regnamespace AND lanname <> 'c'
"""


class UnfinishedCopy(MigrationRefused):
    """The schema is what it must be, and a copy into it is not finished."""


def load_migrations() -> list[Migration]:
    """The migrations of this version. Raises MigrationRefused."""
    return migrations_in(MIGRATIONS)


def status(connection: Connection, migrations: Sequence[Migration]) -> list[Status]:
    """Where each migration stands, those that only the database knows included, by version."""
    return statuses_of(_ledger(connection), migrations)


def pending(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """The migrations that are still to be applied, after checking that the rest is as it must be.

    Raises:
        MigrationRefused: a migration was edited, is unknown or out of order, or the schema is not what they make.
        UnfinishedCopy: `audit-svc copy` has not finished.
    """
    waiting = waiting_of(status(connection, migrations), migrations)
    if not waiting and migrations == load_migrations():
        _check_schema(connection)
        if connection.execute("SELECT 1 FROM seal_files WHERE path = ?", (UNFINISHED,)).fetchone():
            raise UnfinishedCopy(
                "the ledger's database has part of a ledger, whose copy is not finished: ask `audit-svc copy` again"
            )
    return waiting


def refuse_older(connection: Connection) -> None:
    """Refuses a database whose schema lacks migrations. Raises MigrationRefused, also as pending() does."""
    if waiting := pending(connection, load_migrations()):
        labels = ", ".join(migration.label for migration in waiting)
        raise MigrationRefused(
            f"the ledger's database has an older schema ({labels} not applied): run `audit-svc migrate up` as its owner"
        )


def up(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Applies what is pending and returns it. Where nothing is, it asks for no right but to read.

    Raises:
        MigrationRefused: as pending() does, or a file failed, which leaves the database as it was before that file.
    """
    if not pending(connection, migrations):
        return []
    with _locked(connection):
        waiting = pending(connection, migrations)
        for migration in waiting:
            entry = (migration.version, migration.name, migration.checksum, time.time_ns() // 1_000_000)
            _run(
                connection,
                migration,
                _LEDGER + migration.up,
                "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)",
                entry,
            )
        if waiting:
            pending(connection, migrations)
    return waiting


def down(connection: Connection, migrations: Sequence[Migration], to: int) -> list[Migration]:
    """Undoes every migration above the version to, the newest first, and returns them. Raises as up()."""
    with _locked(connection):
        waiting = pending(connection, migrations)
        undone = [each for each in reversed(migrations) if each.version > to and each not in waiting]
        for migration in undone:
            delete = "DELETE FROM schema_migrations WHERE version = ?"
            _run(connection, migration, migration.down, delete, (migration.version,))
    return undone


def schema_of(connection: Connection) -> dict[str, str]:
    """What the catalogs say of the schema: columns, constraints, indexes and functions, each by what it is called."""
    parts = (_COLUMNS, _CONSTRAINTS, _INDEXES, _FUNCTIONS)
    rows = [row for part in parts for row in connection.execute(part).fetchall()]
    return {str(name): str(what) for name, what in sorted(rows) if "schema_migrations" not in name}


def _check_schema(connection: Connection) -> None:
    found = schema_of(connection)
    for name, what in json.loads(KNOWN.read_bytes()).items():
        if found.get(name) != what:
            problem = "differs" if name in found else "is missing"
            raise MigrationRefused(
                f"the database is dirty: {name} {problem}, so the schema is not what its migrations make: "
                "restore a backup, or undo by hand what was done by hand"
            )


def _ledger(connection: Connection) -> list[Applied]:
    found = "SELECT to_regclass('schema_migrations') IS NOT NULL, to_regclass('conversation_migrations') IS NOT NULL"
    ((there, is_conversations),) = connection.execute(found)
    if is_conversations:
        raise MigrationRefused(
            "the database has the sessions of gateways, and sessions hold content, which never lies beside the ledger: "
            "create a database of its own, and name that by AUDIT_DB"
        )
    if not there:
        return []
    try:
        return connection.execute("SELECT version, name, checksum, applied_at FROM schema_migrations").fetchall()
    except psycopg.errors.InsufficientPrivilege:
        raise MigrationRefused(
            "this user may not read the ledger's database: as its owner, run deploy/postgres/service-role.sql, then "
            "GRANT onrecord_service TO the user"
        ) from None
    except psycopg.errors.UndefinedColumn:
        raise MigrationRefused("the table schema_migrations is not audit-svc's: is this its database?") from None


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    with translated():
        connection.execute("SELECT pg_advisory_lock(?)", (LOCK,))
    try:
        yield
    finally:
        if not connection.is_lost:
            connection.execute("SELECT pg_advisory_unlock(?)", (LOCK,))


def _run(connection: Connection, migration: Migration, script: str, ledger: str, entry: tuple[int | str, ...]) -> None:
    try:
        with transaction(connection):
            connection.raw.execute(script.encode())
            connection.execute(ledger, entry)
    except psycopg.errors.InsufficientPrivilege:
        raise MigrationRefused(
            f"migration {migration.label} is not applied, and this user may not: run `audit-svc migrate up` as the "
            "owner of the database, and then deploy/postgres/service-role.sql for the rights of the service's user"
        ) from None
    except psycopg.Error as error:
        problem = error.diag.message_primary or str(error)
        raise MigrationRefused(f"migration {migration.label} failed, and was taken back: {problem}") from None
