"""PostgreSQL's schema says what SQLite's does: no column of one store is missing in the other."""

import json

import apsw

from audit_svc.postgres.open import migrate as postgres
from audit_svc.sqlite.open import migrate as sqlite

FIRST = 22
"""The migration that holds the whole schema of its time."""
OF_SQLITE_ALONE = ("sqlite_", "args_index", "schema_migrations")
OF_POSTGRES_ALONE = {"ledger_writer", "ledger_lease", "seal_files", "seal_runs", "seal_entries", "seal_producers"}


def sqlite_columns() -> dict[str, set[str]]:
    connection = apsw.Connection(":memory:")
    for migration in sqlite.load_migrations():
        connection.execute(migration.up)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {
        table: {column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
        for table in tables
        if not table.startswith(OF_SQLITE_ALONE)
    }


def postgres_columns() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in json.loads(postgres.KNOWN.read_text()):
        kind, _, what = name.partition(" ")
        if kind == "column":
            table, _, column = what.partition(".")
            found.setdefault(table, set()).add(column)
    return {table: columns for table, columns in found.items() if table not in OF_POSTGRES_ALONE}


def test_both_stores_have_the_same_tables_and_columns():
    assert postgres_columns() == sqlite_columns()


def test_a_migration_of_one_store_has_a_twin_of_the_same_number():
    versions = [migration.version for migration in sqlite.load_migrations() if migration.version >= FIRST]
    assert [migration.version for migration in postgres.load_migrations()] == versions
