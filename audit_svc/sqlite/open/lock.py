"""A process's lock on a database, which comes before anything is done to the file."""

import fcntl
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import apsw

from audit_svc.errors import DatabaseInUse, StoreRefused
from audit_svc.sqlite.open.rights import why_unwritable, written_paths

HEADER = b"SQLite format 3\x00"


class FileLock:
    """Locks a database for this process: a lock file beside it, released by the kernel when the process ends."""

    def __init__(self, database: Path, named_by: str = "AUDIT_DB") -> None:
        """Takes the lock; makes the folder, readable by its owner alone, if it is not there.

        named_by: the setting, or the option, that names the database, for people.

        Raises:
            DatabaseInUse: another process holds the database.
            StoreRefused: it, what belongs to it, or its folder cannot be written; or it is another kind of file, which
                is left as it is.
        """
        # Resolved, since a link to a database is the same database.
        database = database.resolve()
        path = database.with_name(database.name + ".lock")
        try:
            database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if reason := why_unwritable(written_paths(database)):
                raise StoreRefused(f"{reason}, or choose another database with {named_by}")
            if database.exists() and not database.is_file():
                raise StoreRefused(f"{database} is not a file: choose another database with {named_by}")
            is_new = not path.exists()
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise StoreRefused(
                f"the folder {database.parent} cannot be used ({error.strerror}): see {named_by}"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._file.read(20).decode()
            self._file.close()
            raise DatabaseInUse(
                f"process {holder} has the database {database} open: stop it first, or choose another with {named_by}"
            ) from None
        # Not before: to close a file loses the locks that this process has on it.
        if reason := _why_another_kind(database):
            if is_new:
                path.unlink()
            self._file.close()
            raise StoreRefused(f"{reason}, or choose another file with {named_by}")
        try:
            self._file.truncate(0)
            self._file.write(str(os.getpid()).encode())
        except OSError as error:
            self._file.close()
            raise StoreRefused(f"{path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lock. It may be called again."""
        self._file.close()


def _why_another_kind(database: Path) -> str:
    """What else a file is, and what to do; empty for a ledger, and for what is not there or empty."""
    with suppress(OSError), database.open("rb") as file:
        if file.read(len(HEADER)) not in (b"", HEADER):
            return f"{database} is damaged or not an SQLite database: restore a backup"
    uri = f"file:{quote(str(database))}?immutable=1"  # makes no files beside it
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with suppress(apsw.Error), closing(apsw.Connection(uri, flags=flags)) as found:  # damage is told when it is opened
        has_tables = found.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table'").fetchone()
        return why_no_ledger(database, found) if has_tables else ""
    return ""


def why_no_ledger(database: Path, connection: apsw.Connection) -> str:
    """What a database is that is no ledger, and what to do; empty for a ledger."""
    if connection.table_exists(None, "schema_migrations"):
        return ""
    return f"{database} is a SQLite database, but no ledger of audit-svc: look where the ledger is"
