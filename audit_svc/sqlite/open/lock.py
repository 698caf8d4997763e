"""A process's lock on a database."""

import fcntl
import os
from pathlib import Path
from typing import Self

from audit_svc.errors import DatabaseInUse, StoreRefused
from audit_svc.sqlite.open.rights import why_unwritable, written_paths


class FileLock:
    """Locks a database for this process: a lock file beside it, released by the kernel when the process ends."""

    def __init__(self, database: Path, named_by: str = "AUDIT_DB") -> None:
        """Takes the lock; makes the folder, readable by its owner alone, if it is not there.

        named_by: the setting, or the option, that names the database, for people.

        Raises:
            DatabaseInUse: another process holds the database.
            StoreRefused: it, what belongs to it, or its folder cannot be written.
        """
        # Resolved, since a link to a database is the same database.
        database = database.resolve()
        path = database.with_name(database.name + ".lock")
        try:
            database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if reason := why_unwritable(written_paths(database)):
                raise StoreRefused(f"{reason}, or choose another database with {named_by}")
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
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lock. It may be called again."""
        self._file.close()
