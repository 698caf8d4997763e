"""A backup of a ledger that is being written to: one snapshot, checked before the file gets its name."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from audit_svc.errors import DiskFull, StoreRefused
from audit_svc.ledger.progress import OnProgress
from audit_svc.sqlite.open.connection import translated
from audit_svc.sqlite.open.files import reading, sync

STEP_PAGES = 2048
"""Pages, mostly of 4 KiB, that are copied between two reports of progress."""
PROGRESS_STEPS = 1_000_000
"""Steps of SQLite's machine between two calls of on_progress: some hundredths of a second."""

_Facts = tuple[list[object], dict[str, int]]
"""A schema, and the rows of each table."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished copy."""

    path: Path
    size_bytes: int
    rows: dict[str, int]
    """Rows by table."""


def back_up(
    source: Path, target: Path, on_progress: OnProgress, on_unseen: Callable[[str], None] = lambda _: None
) -> Copy:
    """Copies the ledger at source to target, which must not be there. on_unseen: as of reading().

    Raises:
        StoreRefused: source is no sound ledger, target is there already or cannot be written, or the copy is not sound.
        DiskFull: the disk of target has no room for it.
    """
    with new_file(target) as partial, reading(source, exact_schema=False, on_unseen=on_unseen) as ledger:
        rows = copy(source, ledger, partial, on_progress)
        size_bytes = partial.stat().st_size
    return Copy(target, size_bytes, rows)


def copy(source: Path, ledger: apsw.Connection, partial: Path, on_progress: OnProgress) -> dict[str, int]:
    """Copies the ledger at source into the empty file partial, checks it, and returns its rows by table.

    ledger: a connection that reads source. None is opened here by its name: a service that opened and closed its own
        file would lose its locks on it (https://sqlite.org/howtocorrupt.html, 2.2).

    Raises:
        StoreRefused, DiskFull: as back_up() does.
    """
    # All steps copy from the moment of this transaction: without it each commit would start the copy anew.
    call_while_it_runs(ledger, on_progress)
    ledger.execute("BEGIN")
    expected = _facts(ledger)
    with translated(partial):
        _write(source, ledger, partial, expected, on_progress)
    sync(partial)
    return expected[1]


def _write(source: Path, ledger: apsw.Connection, partial: Path, expected: _Facts, on_progress: OnProgress) -> None:
    written = apsw.Connection(str(partial))
    try:
        written.pragma("synchronous", "OFF")
        written.pragma("journal_mode", "OFF")
        with written.backup("main", ledger, "main") as steps:
            while not steps.done:
                steps.step(STEP_PAGES)
                on_progress(steps.page_count - steps.remaining, steps.page_count)
        ledger.execute("COMMIT")  # the WAL of a service need not grow while the copy is checked, which takes longer
        # One file that can be read from where nothing can be written; a service makes it WAL again.
        written.pragma("journal_mode", "DELETE")
        call_while_it_runs(written, on_progress)
        _refuse_difference(written, expected)
    except apsw.CorruptError as error:
        raise StoreRefused(
            f"{source} is damaged ({error}), and so would be its copy: see what `audit-svc check` says"
        ) from None
    finally:
        written.close()


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Gives the path of an empty file beside target, of mode 0600, and at the end names it target, all at once.

    When its body raises, nothing is left. A folder that is missing is made with mode 0700.

    Raises:
        StoreRefused: target is there already, or cannot be written.
    """
    refuse_existing(target)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreRefused(f"{target} cannot be written ({error.strerror})") from None
    try:
        yield partial
        # A link refuses to replace what came meanwhile, which a rename does not.
        os.link(partial, target)
        sync(target.parent)
    except FileExistsError:
        raise StoreRefused(f"{target} is there already: choose another name") from None
    except OSError as error:
        raise DiskFull(f"{target} cannot be written ({error.strerror})") from None
    finally:
        for leftover in (partial, *(partial.with_name(partial.name + end) for end in ("-journal", "-wal", "-shm"))):
            leftover.unlink(missing_ok=True)


def refuse_existing(target: Path) -> None:
    """Refuses a name that is taken.

    Raises:
        StoreRefused: it is.
    """
    if os.path.lexists(target):
        raise StoreRefused(f"{target} is there already: choose another name")


def _facts(connection: apsw.Connection) -> _Facts:
    """The schema, and the number of rows of each table."""
    schema = list(connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"))
    tables = [str(name) for kind, name, _ in schema if kind == "table" and not str(name).startswith("sqlite_")]
    counts = {}
    for table in tables:
        quoted = table.replace('"', '""')
        ((rows,),) = connection.execute(f'SELECT count(*) FROM "{quoted}"')  # noqa: S608 - quoted
        counts[table] = int(rows)
    return list(schema), counts


def call_while_it_runs(connection: apsw.Connection, on_progress: OnProgress) -> None:
    """Calls on_progress with (0, 0) while a statement of connection runs, so that it can end it by raising."""

    def alive() -> bool:
        on_progress(0, 0)
        return False

    connection.set_progress_handler(alive, PROGRESS_STEPS)


def _refuse_difference(written: apsw.Connection, expected: _Facts) -> None:
    problems = [str(row[0]) for row in written.execute("PRAGMA integrity_check(1)")]
    if problems != ["ok"]:
        raise StoreRefused(f"the copy is not sound ({' '.join(problems[0].split())}): run `audit-svc check`")
    if _facts(written) != expected:
        raise StoreRefused("the copy has other rows than the ledger: try again, and report it")
