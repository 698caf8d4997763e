"""Ledgers as files, read beside a running service or without one."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from audit_svc.errors import StoreRefused
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.open.connection import Connection, open_for_writing, translated
from audit_svc.sqlite.open.lock import FileLock, why_no_ledger


@contextmanager
def reading(
    path: Path, *, exact_schema: bool = True, on_unseen: Callable[[str], None] = lambda _: None
) -> Iterator[Connection]:
    """A connection to a ledger or to a backup of one, which changes neither the file nor its folder.

    exact_schema: whether its schema must be the one that this version of the code knows.
    on_unseen: called with a sentence where rows may be missing in what is read.

    Raises:
        StoreRefused: it is missing, is no ledger, is damaged, has another schema, or was changed while it was read.
        DiskFull: the disk has no room for what the body writes.
    """
    found = FoundDatabase(path)
    with translated(path), found.unchanged(), closing(found.connect()) as connection:
        if reason := why_no_ledger(path, connection):
            raise StoreRefused(reason)
        if exact_schema:
            migrate.refuse_older(connection, path)
        if found.unseen:
            on_unseen(found.unseen)
        yield connection


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
