"""Rebuilding the rollups of a file that no service has open."""

from contextlib import closing
from pathlib import Path

from audit_svc.store import migrate
from audit_svc.store.backup import Tell, watch
from audit_svc.store.files import reading, translated
from audit_svc.store.opening import FileLock, open_for_writing
from audit_svc.store.rollups import rebuild_rollups


def rebuild_file(path: Path, tell: Tell) -> None:
    """Makes all rollups again from the rows; of an older file, with the migrations that it lacks.

    Raises:
        StoreRefused: a service has it open, or it is no sound ledger.
        DiskFull: the disk has no room for it.
    """
    with reading(path, exact_schema=False):
        pass  # which refuses what is no ledger, before a file is made
    lock = FileLock(path)
    try:
        with translated(path), closing(open_for_writing(path)) as connection:
            watch(connection, tell)
            migrate.up(connection, migrate.load_migrations())
            rebuild_rollups(connection)
    finally:
        lock.release()
