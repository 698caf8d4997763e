"""Rebuilding what is kept beside the rows of a file that no service has open."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit_svc.ledger.progress import OnProgress
from audit_svc.sqlite.care.backup import call_while_it_runs
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.open.files import writing
from audit_svc.sqlite.text.text_index import rebuild_text_index, unindexed_rows
from audit_svc.sqlite.usage.recount import rebuild_rollups
from audit_svc.sqlite.usage.session_sums import rebuild_sessions


def rebuild_file(path: Path, on_progress: OnProgress) -> None:
    """Makes all rollups again from the rows; of an older file, with the migrations that it lacks.

    Raises:
        StoreRefused: a service has it open, or it is no sound ledger.
        DiskFull: the disk has no room for it.
    """
    with _writing(path) as connection:
        call_while_it_runs(connection, on_progress)
        rebuild_rollups(connection)
        for _ in rebuild_sessions(connection):
            on_progress(0, 0)


def rebuild_texts(path: Path, on_progress: OnProgress) -> None:
    """Makes the index of texts again from the rows, some at a time. Raises what rebuild_file() raises."""
    with _writing(path) as connection:
        rows = 0
        for _ in rebuild_text_index(connection):
            left = unindexed_rows(connection)
            rows = max(rows, left)
            on_progress(rows - left, rows)


@contextmanager
def _writing(path: Path) -> Iterator[Connection]:
    with writing(path, exact_schema=False) as connection:
        migrate.up(connection, migrate.load_migrations())
        yield connection
