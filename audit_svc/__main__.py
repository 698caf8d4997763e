"""The command line."""

import errno
import io
import os
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from audit_svc.settings import AuditSettings
from audit_svc.sqlite.open import migrate as migrations
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.open.connection import open_for_writing, translated
from audit_svc.sqlite.open.lock import FileLock
from audit_svc.terminal import care, compare, export, producers, queries
from audit_svc.terminal.running import Database, error_is_exit_code_1, ledger_path
from audit_svc.terminal.tail import tail
from audit_svc.terminal.ui import ui
from service_kit.access.roles import Role
from service_kit.access.token_command import add_token_command
from service_kit.client import client_options, current_access
from service_kit.probe import probe
from service_kit.run import prepare_process
from service_kit.settings import load_settings

app = typer.Typer(
    help="The ledger of tool calls: owns the SQLite database and answers questions about it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.callback()(client_options)
add_token_command(app, "AUDIT_TOKENS_FILE", (Role.PRODUCER, Role.READER, Role.ADMIN))
migrate_app = typer.Typer(help="Look at the database's schema and change it, while no service has it open.")
app.add_typer(migrate_app, name="migrate", no_args_is_help=True)
for commands in (queries, compare, export, producers, care):
    commands.add_commands(app)
app.command()(tail)
app.command()(ui)

_NOT_WRITTEN = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main() -> None:
    """Runs the command line. Where stdout cannot be written, a sentence says so."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding than rows have
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        # What is left in the buffer must not fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            typer.echo(f"audit-svc: stdout cannot be written: {error.strerror}", err=True)
        sys.exit(1)


@app.command()
def serve(
    db: Database = None,
    migrate: Annotated[bool, typer.Option(help="Apply pending migrations; without it refuse to start.")] = True,
    create: Annotated[
        bool, typer.Option("--create", help="Begin an empty ledger where a served one is missing.")
    ] = False,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = _settings(db)
    prepare_process(settings)
    from audit_svc.server import serve as serve_ledger  # only here, so that no other command loads it

    with error_is_exit_code_1():
        serve_ledger(settings, apply_migrations=migrate, create=create)


@app.command()
def health(
    target: Annotated[str | None, typer.Option(help="host:port; AUDIT_LISTEN when not given.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 3.0,
    live: Annotated[bool, typer.Option("--live", help="Whether it answers, even that it cannot serve now.")] = False,
) -> None:
    """Ask a running service whether it serves; exit code 0 when it does, else 1."""
    settings = load_settings(AuditSettings)
    serves, said = probe(target or settings.listen, timeout, current_access(), settings.server_files, live=live)
    typer.echo(said, err=not serves)
    raise typer.Exit(0 if serves else 1)


@migrate_app.command()
def up(db: Database = None) -> None:
    """Apply pending migrations."""
    path = ledger_path(db)
    with error_is_exit_code_1(), FileLock(path), closing(open_for_writing(path)) as connection:
        applied = migrations.up(connection, migrations.load_migrations())
    typer.echo("\n".join(f"applied {migration.label}" for migration in applied) or "nothing is pending")


@migrate_app.command()
def down(
    to: Annotated[int, typer.Option(help="Undo every migration above this version, the rows of its tables included.")],
    db: Database = None,
) -> None:
    """Undo migrations, the newest first."""
    path = ledger_path(db)
    with error_is_exit_code_1(), FileLock(path), closing(open_for_writing(path)) as connection:
        undone = migrations.down(connection, migrations.load_migrations(), to)
    typer.echo("\n".join(f"undone {migration.label}" for migration in undone) or "nothing to undo")


@migrate_app.command()
def status(db: Database = None) -> None:
    """Show where each migration stands; exit code 1 when the service would refuse the database as it is."""
    path = ledger_path(db)
    with error_is_exit_code_1():
        known = migrations.load_migrations()
        table = Table("version", "name", "state", "applied at", box=None, pad_edge=False)
        found = FoundDatabase(path)
        with translated(path), found.unchanged(), closing(found.connect()) as connection:
            for entry in migrations.status(connection, known):
                at = (
                    datetime.fromtimestamp(entry.applied_at / 1000, UTC).isoformat(timespec="seconds")
                    if entry.applied_at
                    else ""
                )
                table.add_row(f"{entry.version:04d}", entry.name, entry.state, at)
            Console().print(table)
            migrations.pending(connection, known)


def _settings(db: Path | None) -> AuditSettings:
    settings = load_settings(AuditSettings)
    return settings if db is None else settings.model_copy(update={"db": db})


if __name__ == "__main__":
    main()
