"""The lock that a process holds on a database."""

import fcntl
import os
from pathlib import Path

from audit_svc.errors import Held, StoreRefused


class FileLock:
    """Holds a database for this process: a lock file beside it, whose lock ends with the process however it ends."""

    def __init__(self, database: Path) -> None:
        """Takes the lock; makes the folder, readable by its owner alone, if it is not there.

        Raises:
            Held: another process holds the database.
            StoreRefused: its folder cannot be written.
        """
        # Resolved, since a link to a database is the same database.
        database = database.resolve()
        path = database.with_name(database.name + ".lock")
        try:
            database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreRefused(
                f"the folder {database.parent} cannot be used ({error.strerror}): see AUDIT_DB"
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0).decode()
            os.close(self._descriptor)
            raise Held(
                f"process {holder} has the database {database} open: stop it first, or choose another with AUDIT_DB"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Lets the database go."""
        os.close(self._descriptor)
