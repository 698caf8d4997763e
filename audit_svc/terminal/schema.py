"""migrate up, down and status."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from audit_svc.terminal.running import AnyDatabase, error_is_exit_code_1, named_database, out
from service_kit.terminal.command import Option, echo
from service_kit.terminal.printing import Json, Table, print_fields


def up(db: AnyDatabase = None, as_json: Json = False) -> None:
    """Apply pending migrations."""
    with error_is_exit_code_1(), _opened(named_database(db)) as (migrations, connection):
        applied = migrations.up(connection, migrations.load_migrations())
    if as_json:
        print_fields({"applied": [migration.label for migration in applied]})
        return
    echo("\n".join(f"applied {migration.label}" for migration in applied) or "nothing is pending")


def down(
    to: Annotated[int, Option(help="Undo every migration above this version, the rows of its tables included.")],
    db: AnyDatabase = None,
    as_json: Json = False,
) -> None:
    """Undo migrations, the newest first."""
    with error_is_exit_code_1(), _opened(named_database(db)) as (migrations, connection):
        undone = migrations.down(connection, migrations.load_migrations(), to)
    if as_json:
        print_fields({"undone": [migration.label for migration in undone]})
        return
    echo("\n".join(f"undone {migration.label}" for migration in undone) or "nothing to undo")


def status(db: AnyDatabase = None, as_json: Json = False) -> None:
    """Show where each migration stands; exit code 1 when the service would refuse the database as it is."""
    with error_is_exit_code_1(), _opened(named_database(db), reads=True) as (migrations, connection):
        known = migrations.load_migrations()
        table = Table("version", "name", "state", "applied at")
        for entry in migrations.status(connection, known):
            at = (
                datetime.fromtimestamp(entry.applied_at / 1000, UTC).isoformat(timespec="seconds")
                if entry.applied_at
                else ""
            )
            fields = {"version": entry.version, "name": entry.name, "state": entry.state, "applied_at": at}
            print_fields(fields) if as_json else table.add_row(f"{entry.version:04d}", *list(fields.values())[1:])
        if not as_json:
            out.print(table)
        migrations.pending(connection, known)


@contextmanager
def _opened(database: Path | str, *, reads: bool = False) -> Iterator[tuple[Any, Any]]:
    """The migrations of a database's kind, as a module, and a connection to it."""
    if isinstance(database, str):
        from audit_svc.stores.driver import refuse_without_driver

        refuse_without_driver()
        from audit_svc.postgres.open import migrate as of_postgres
        from audit_svc.postgres.open.connection import connect

        with closing(connect(database, writes=not reads)) as connection:
            yield of_postgres, connection
        return
    from audit_svc.sqlite.open import migrate
    from audit_svc.sqlite.open.connection import open_for_writing, translated

    if reads:
        from audit_svc.sqlite.open.at_rest import FoundDatabase

        found = FoundDatabase(database)
        with translated(database), found.unchanged(), closing(found.connect()) as reading:
            yield migrate, reading
        return
    from audit_svc.sqlite.open.lock import FileLock

    with FileLock(database), closing(open_for_writing(database)) as writing:
        yield migrate, writing
