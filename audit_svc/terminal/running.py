"""What commands share: finding the ledger, showing progress, ending with an exit code."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from audit_svc.errors import AuditError, DatabaseVanished
from audit_svc.settings import AuditSettings
from service_kit.printable import printable
from service_kit.settings import load_settings

Database = Annotated[Path | None, typer.Option("--db", help="The database file; AUDIT_DB when not given.")]
Target = Annotated[str | None, typer.Option(help="A running service, host:port, instead of a file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]

# without markup: what others wrote may hold brackets
out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def ledger_path(db: Path | None) -> Path:
    """The database file that a command works on."""
    return db if db is not None else load_settings(AuditSettings).db


@contextmanager
def error_is_exit_code_1() -> Iterator[None]:
    """Turns the ledger's errors into a sentence on stderr and the exit code, 2 where a served database is missing."""
    try:
        yield
    except AuditError as error:
        typer.echo(f"audit-svc: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, DatabaseVanished) else 1) from None


def say_unseen(told: str) -> None:
    """Prints on stderr why rows may be missing in what is read."""
    err.print(printable(told), style="yellow")


def say(text: str, fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints a result, for people or for programs: one line, whatever the producers' names in it hold."""
    typer.echo(json.dumps(fields) if as_json else printable(text))


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal. Called with how much is done, and of how much."""
    with Progress(
        TextColumn(title),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def size(count: int) -> str:
    """A number of bytes for people."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} bytes" if units[0] == "B" else f"{value:.1f} {units[0]}"
