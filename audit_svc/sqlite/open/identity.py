"""Which files an open database is: its path may come to name another file, or none, while rows go into the first."""

from pathlib import Path

from audit_svc.sqlite.open.rights import why_unwritable, written_paths


class FileIdentity:
    """The files of a database that this process has open, by device and inode."""

    def __init__(self, database: Path) -> None:
        """Call it while a connection to database has read something, and its lock is held."""
        resolved = database.resolve()
        # The path as it was given too: a link may be turned to another file.
        self._written = written_paths(resolved)
        self._files = {path: _identity(path) for path in (database, *self._written[1:])}

    def why_unfit(self) -> str:
        """Why no row may be taken, or the service could not start again: a sentence; empty while all is well."""
        return why_unwritable(self._written) or self.changed()

    def changed(self) -> str:
        """Why what is written now would not be found again: a sentence; empty while the files are what they were."""
        for path, identity in self._files.items():
            found = _identity(path)
            if found != identity:
                what = "is gone" if found is None else "is another file"
                return f"{path} {what} since the ledger was opened: put it back, or restore a backup and start again"
        return ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
