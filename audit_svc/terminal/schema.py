"""migrate up, down and status."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

from audit_svc.sqlite.open import migrate as migrations
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.open.connection import open_for_writing, translated
from audit_svc.sqlite.open.lock import FileLock
from audit_svc.terminal.running import Database, error_is_exit_code_1, ledger_path, out
from service_kit.terminal.command import Option, echo
from service_kit.terminal.printing import Table


def up(db: Database = None) -> None:
    """Apply pending migrations."""
    path = ledger_path(db)
    with error_is_exit_code_1(), FileLock(path), closing(open_for_writing(path)) as connection:
        applied = migrations.up(connection, migrations.load_migrations())
    echo("\n".join(f"applied {migration.label}" for migration in applied) or "nothing is pending")


def down(
    to: Annotated[int, Option(help="Undo every migration above this version, the rows of its tables included.")],
    db: Database = None,
) -> None:
    """Undo migrations, the newest first."""
    path = ledger_path(db)
    with error_is_exit_code_1(), FileLock(path), closing(open_for_writing(path)) as connection:
        undone = migrations.down(connection, migrations.load_migrations(), to)
    echo("\n".join(f"undone {migration.label}" for migration in undone) or "nothing to undo")


def status(db: Database = None) -> None:
    """Show where each migration stands; exit code 1 when the service would refuse the database as it is."""
    path = ledger_path(db)
    with error_is_exit_code_1():
        known = migrations.load_migrations()
        table = Table("version", "name", "state", "applied at")
        found = FoundDatabase(path)
        with translated(path), found.unchanged(), closing(found.connect()) as connection:
            for entry in migrations.status(connection, known):
                at = (
                    datetime.fromtimestamp(entry.applied_at / 1000, UTC).isoformat(timespec="seconds")
                    if entry.applied_at
                    else ""
                )
                table.add_row(f"{entry.version:04d}", entry.name, entry.state, at)
            out.print(table)
            migrations.pending(connection, known)
