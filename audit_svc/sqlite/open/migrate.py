"""The migration runner: files NNNN_name.up.sql and NNNN_name.down.sql, and a ledger table of those applied.

Each file runs in one transaction with its ledger row, so a process that dies in the middle leaves nothing behind. What
the ledger claims is checked against the schema itself, which must be exactly what its migrations make: a database that
was changed by hand or by another tool is found to be dirty.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import apsw

from audit_svc.errors import MigrationRefused
from audit_svc.ledger.migrations import Migration, Status, migrations_in, statuses_of, waiting_of
from audit_svc.sqlite.open.connection import Connection, transaction

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
KNOWN = MIGRATIONS / "schema.json"
"""See known(): of all migrations, which a reader need not apply to know what they make. A test says what it must hold;
where it says something else, they are applied.
"""

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INTEGER PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;
"""


def load_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations of folder by version. Versions may have gaps.

    Raises:
        MigrationRefused: two files have one version, or a down file is missing.
    """
    return migrations_in(folder)


def status(connection: Connection, migrations: Sequence[Migration]) -> list[Status]:
    """Where each migration stands, those that only the database knows included, by version."""
    return statuses_of(_ledger(connection), migrations)


def pending(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """The migrations that are still to be applied, after checking that the rest is as it must be.

    Raises:
        MigrationRefused: a migration was edited, is unknown or out of order, or the schema is not what they make.
    """
    waiting = waiting_of(status(connection, migrations), migrations)
    _check_schema(connection, [migration for migration in migrations if migration not in waiting])
    return waiting


def refuse_older(connection: Connection, path: Path) -> None:
    """Refuses a ledger whose schema lacks migrations.

    Raises:
        MigrationRefused: it does, or as pending() does.
    """
    if waiting := pending(connection, load_migrations()):
        labels = ", ".join(migration.label for migration in waiting)
        raise MigrationRefused(
            f"{path} has an older schema ({labels} not applied): run `audit-svc migrate up --db {path}`; "
            "if it was copied without its -wal, copy it again with `audit-svc backup`"
        )


def up(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Applies what is pending and returns it.

    Raises:
        MigrationRefused: as pending() does, or a file failed, which leaves the database as it was before that file.
    """
    waiting = pending(connection, migrations)
    for migration in waiting:
        entry = (migration.version, migration.name, migration.checksum, time.time_ns() // 1_000_000)
        insert = "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)"
        _run(connection, migration.label, _LEDGER + migration.up, insert, entry)
    return waiting


def down(connection: Connection, migrations: Sequence[Migration], to: int) -> list[Migration]:
    """Undoes every migration above the version to, the newest first, and returns them.

    Raises:
        MigrationRefused: as up() does.
    """
    waiting = pending(connection, migrations)
    undone = [migration for migration in reversed(migrations) if migration.version > to and migration not in waiting]
    for migration in undone:
        delete = "DELETE FROM schema_migrations WHERE version = ?"
        _run(connection, migration.label, migration.down, delete, (migration.version,))
    return undone


def _run(connection: Connection, label: str, script: str, ledger: str, entry: tuple[int | str, ...]) -> None:
    try:
        with transaction(connection):
            connection.execute(script)
            connection.execute(ledger, entry)
    except apsw.Error as error:
        raise MigrationRefused(f"migration {label} failed, and was taken back: {error}") from error


def _ledger(connection: Connection) -> list[tuple[int, str, str, int]]:
    if not connection.table_exists(None, "schema_migrations"):
        return []
    try:
        return list(connection.execute("SELECT version, name, checksum, applied_at FROM schema_migrations"))
    except apsw.SQLError as error:
        raise MigrationRefused(
            f"the table schema_migrations is not audit-svc's ({error}): is this its database?"
        ) from None


def _check_schema(connection: Connection, applied: Sequence[Migration]) -> None:
    found = _schema(connection)
    if KNOWN.exists() and json.loads(KNOWN.read_bytes()) == known(applied, found):
        return
    wanted = schema_of(tuple(applied))
    for name in sorted({*wanted, *found}):
        if wanted.get(name) == found.get(name):
            continue
        problem = "is missing" if name not in found else "is not of any migration" if name not in wanted else "differs"
        raise MigrationRefused(
            f"the database is dirty: {name} {problem}, so the schema is not what its migrations make: "
            "restore a backup, or undo by hand what was done by hand"
        )


def known(migrations: Sequence[Migration], schema: Mapping[str, str]) -> dict[str, str]:
    """What KNOWN holds where these migrations make this schema: the SHA-256 of each, in hexadecimal."""
    texts = {
        "migrations": "".join(migration.checksum for migration in migrations),
        "schema": json.dumps(schema, sort_keys=True),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


@cache
def schema_of(migrations: tuple[Migration, ...]) -> dict[str, str]:
    """What they make of nothing."""
    connection = apsw.Connection(":memory:")
    for migration in migrations:
        connection.execute(migration.up)
    return _schema(connection)


def _schema(connection: Connection) -> dict[str, str]:
    query = "SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' AND name != ?"
    # ALTER TABLE edits a table's text, and leaves other white space than the same table has when made at once.
    rows = connection.execute(query, ("schema_migrations",))
    return {name: " ".join(sql.split()).replace("( ", "(").replace(" )", ")").replace(" ,", ",") for name, sql in rows}
