"""What commands share: finding the ledger, showing progress, ending with an exit code."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from audit_svc.errors import AuditError, DatabaseVanished, FileDamaged, InvalidRequest, NoFile, NotFound, WrongSetting
from recording.transparency.errors import TransparencyError
from service_kit.client import refuse_wrong_target
from service_kit.printable import printable
from service_kit.terminal import printing
from service_kit.terminal.command import BadParameter, Option
from service_kit.terminal.failures import Failed
from service_kit.terminal.ids import too_short

Database = Annotated[Path | None, Option("--db", help="The database file; AUDIT_DB when not given.")]
AnyDatabase = Annotated[
    str | None, Option("--db", help="The database file, or postgresql://…; AUDIT_DB when not given.")
]
Target = Annotated[
    str | None,
    Option("--target", help="A running service, host:port; without it the command works on the database file."),
]
Json = printing.Json
DryRun = Annotated[bool, Option("--dry-run", help="Say what would be done, and do nothing.")]

Force = Annotated[bool, Option("--force", help="Replace a file that is there.")]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING_SAID = 2

NO_FILE = (
    "ask a running service with --target HOST:PORT where there is that option, and do what is left with PostgreSQL's "
    "own tools (docs/operations.md)"
)
_OF_POSTGRES = ("postgresql:/", "postgres:/")

out = printing.Printer()
err = printing.Printer(stderr=True)


def refuse_both(db: Path | str | None, target: str | None) -> None:
    """Raises BadParameter where a file and a service are named, or a service by what is no address."""
    if target is not None:
        refuse_wrong_target(target)
    if db is not None and target is not None:
        raise BadParameter("give a file or a service, and not both", param_hint="--db and --target")


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raises Failed where path is a file that nobody has said may be replaced."""
    if path.is_file() and not force:
        raise Failed(f"{path} is there already: choose another name, or replace it with --force", EXIT_FAILED)


def ledger_path(db: Path | None) -> Path:
    """The database file that a command works on. Raises BadParameter where it is a PostgreSQL database."""
    if isinstance(named := named_database(str(db) if db else None), str):
        given = "--db" if db else "AUDIT_DB"
        raise BadParameter(f"names a PostgreSQL database, and this command opens files: {NO_FILE}", param_hint=given)
    return named


_meant = dict[Path, bool]()
"""The files that commands work on and no option named, and whether that was said."""


def file_meant(db: Path | None) -> Path:
    """As ledger_path(), for a command that works on a service too: which file no option has named is said at the end.

    Where the command fails, too, unless what it says names the file.
    """
    path = ledger_path(db)
    if db is None:
        _meant.setdefault(path, False)
    return path


def may_ask(path: Path) -> None:
    """As file_meant(), of a command that does not say its file: only where path is missing, a service is hinted at."""
    _meant.setdefault(path, True)


def _say_meant(told: str = "") -> None:
    for path, was_said in _meant.items():
        _meant[path] = True
        if not was_said and str(path) not in told:
            said = f"the ledger is the file {path}; for a running service give --target HOST:PORT"
            err.print(printable(said), style="dim")


def named_database(db: str | None) -> Path | str:
    """The file, or the URL of a PostgreSQL database, that --db names, or else AUDIT_DB. Raises BadParameter."""
    if db is not None:
        if not db:
            raise BadParameter("is empty: name a file, or leave it out", param_hint="--db")
        if db.startswith(_OF_POSTGRES):  # a path has lost one of its slashes
            return re.sub(":/+", "://", db, count=1)
        return Path(db)
    from audit_svc.settings import AuditSettings  # who says which file, or asks a service, need not wait for them
    from service_kit.settings import load_settings

    return load_settings(AuditSettings).db


_OPTIONS = {
    "agent_name": "--agent",
    "args_contain": "--contains",
    "created_before_ms": "--until",
    "created_from_ms": "--since",
    "group_by": "--by",
    "labels": "--label",
    "labels.labels": "--label",
    "name": "NAME",
    "outcomes": "--outcome",
    "row.id": "ROW",
    "session.id": "SESSION",
    "session_id": "--session",
    "statuses": "--status",
    "tool_name": "--tool",
    "turn_id": "--turn",
    "updated_before_ms": "--until",
    "updated_from_ms": "--since",
}
"""The fields of requests that a service may refuse, by what is typed, where that is not the same word."""
_FIELD = re.compile(
    r"filter\.(?:calls\.)?(\w+)(?:\.\w+)?|\b((?:created|updated)_(?:from|before)_ms|group_by|labels\.labels|(?:row|session)\.id)\b"
    r"|^(name|reason)(?= (?:is|has) )"
)


def in_options(message: str) -> str:
    """What a service says of a field, said of the option that it was typed as."""
    if "_token is not one that this service gave" in message:  # which nobody types
        return "the service does not know where the list goes on, as after a restore: give the command again"
    return _FIELD.sub(lambda found: _option(found[1] or found[2] or found[3]), message)


def _option(field: str) -> str:
    return _OPTIONS.get(field) or f"--{field.removesuffix('s').replace('_', '-')}"


@contextmanager
def error_is_exit_code_1(where: str = "") -> Iterator[None]:
    """Turns the ledger's errors into Failed: exit code 2 where a served database is missing, or a setting or a value of
    the command line is wrong.

    where: see what_lists().
    """
    try:
        yield
        _say_meant()
    except (AuditError, TransparencyError) as error:
        _say_meant(str(error))
        code = EXIT_USAGE if isinstance(error, (DatabaseVanished, InvalidRequest, WrongSetting)) else EXIT_FAILED
        raise Failed(in_options(str(error)) + _hint(error, where), code, error) from None


def _hint(error: Exception, where: str) -> str:
    """What makes a file that is missing, and who else can be asked; what lists sessions where there is no such one."""
    if isinstance(error, NotFound):
        return what_lists(error.resource, error.id, where)
    if not (isinstance(error, NoFile) and _is_served(error.path)):
        return ""
    asks = "for a running service give --target HOST:PORT; " if error.path in _meant else ""
    return f": {asks}`audit-svc serve` makes it"


def what_lists(resource: str, id_: str, where: str) -> str:
    """The end of a sentence on a resource that is not there: the command that lists those that are, of sessions; that
    its id is too short for a part of one.

    where: the option that has named the ledger, see as_option().
    """
    lists = f": `audit-svc sessions{where}` lists those that it has" if resource == "session" else ""
    return lists + too_short(id_)


def as_option(db: Path | None, target: str | None) -> str:
    """The option that names a ledger, behind a blank, for a command to paste; empty where the environment says it."""
    if target:
        return f" --target {quote(target)}"
    return f" --db {quote(str(db))}" if db and str(db) != os.environ.get("ONRECORD_DB") else ""


def _is_served(path: Path) -> bool:
    """Whether a service would open path, as its settings are now."""
    from audit_svc.settings import AuditSettings  # only where a file is missing

    try:
        return AuditSettings().db == path
    except ValueError:  # a setting is wrong, and it would not start
        return False


@contextmanager
def nothing_can_be_said() -> Iterator[None]:
    """Gives a failure in the body the exit code of what could not be looked at, but not damage that was found."""
    try:
        with error_is_exit_code_1():
            yield
    except Failed as failed:
        if not isinstance(failed.cause, FileDamaged):
            failed.code = EXIT_NOTHING_SAID
        raise


@cache
def say_unseen(told: str) -> None:
    """Prints on stderr why rows may be missing in what is read; once, however often a command opens the file."""
    err.print(printable(told), style="yellow")


def say(text: str, fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints a result, for people or for programs: one line, whatever the producers' names in it hold."""
    out.print(json.dumps(fields) if as_json else printable(text))


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """How far something is, on stderr, where that is a terminal. Called with how much is done, and of how much."""

    def show(done: int, total: int) -> str:
        return f"{title} {100 * done // total} %" if total else f"{title} {done:,}"

    with printing.progress(err, show) as tell:
        yield tell


def size(count: int) -> str:
    """A number of bytes for people."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return printing.counted(count, "byte") if units[0] == "B" else f"{value:.1f} {units[0]}"
