"""Ledgers as files, read beside a running service or without one."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from audit_svc.errors import StoreRefused
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import Connection, open_for_reading, open_for_writing, translated
from audit_svc.sqlite.open.lock import FileLock

_HEADER = b"SQLite format 3\x00"


@contextmanager
def reading(path: Path, *, exact_schema: bool = True) -> Iterator[Connection]:
    """A connection that cannot write, to a ledger or to a backup of one.

    exact_schema: whether its schema must be the one that this version of the code knows.

    Raises:
        StoreRefused: it is missing, is no ledger, is damaged, or has another schema.
        DiskFull: the disk has no room for what the body writes.
    """
    _refuse_what_is_no_database(path)
    with translated(path):
        connection = open_for_reading(path)
        try:
            if not connection.table_exists(None, "schema_migrations"):
                raise StoreRefused(f"{path} is a SQLite database, but no ledger of audit-svc")
            if exact_schema:
                migrate.refuse_older(connection, path)
            yield connection
        finally:
            connection.close()


@contextmanager
def writing(path: Path, *, exact_schema: bool = True) -> Iterator[Connection]:
    """The connection that writes to a ledger which no service has open.

    Raises:
        StoreRefused: a service has it open, or as reading() does.
        DiskFull: the disk has no room for what the body writes.
    """
    with reading(path, exact_schema=exact_schema):
        pass  # which refuses what is no ledger, before a lock file is made beside it
    with FileLock(path), translated(path), closing(open_for_writing(path)) as connection:
        yield connection


def sync(path: Path) -> None:
    """Returns once a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_what_is_no_database(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except FileNotFoundError:
        raise StoreRefused(f"there is no file {path}") from None
    except OSError as error:
        raise StoreRefused(f"{path} cannot be read ({error.strerror})") from None
    if header != _HEADER:
        raise StoreRefused(f"{path} is no SQLite database")
