"""When a ledger's file was last checked as a whole, and whether it came to a clean end since: a mark beside it.

A check reads the whole file, which takes longer with each row. Only who has a reason waits for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from audit_svc.errors import StoreRefused
from recording.locks import sync_folder
from recording.replacing import replace_file

log = structlog.get_logger(__name__)

Need = Literal["none", "in the background", "before it is served"]


@dataclass(frozen=True, slots=True)
class LastCheck:
    """The last check of a file that was closed as it should be, or that was found damaged."""

    checked_at_ms: int
    is_sound: bool
    file: Mapping[str, int]
    """What the file was when it was closed, see _identity()."""

    def need(self, database: Path) -> Need:
        """What has to be checked now, however long ago the last check was."""
        if not self.is_sound:
            return "before it is served"
        return "none" if self.file == _identity(database) else "in the background"


def take(database: Path) -> LastCheck | None:
    """Reads the mark and removes it: a process that is killed leaves none. None where there is none that is whole.

    Raises:
        StoreRefused: it cannot be removed.
    """
    mark = mark_of(database)
    try:
        found = json.loads(mark.read_bytes())
        check = LastCheck(int(found["checked_at_ms"]), found["is_sound"] is True, found["file"])
    except (OSError, ValueError, KeyError, TypeError):
        check = None
    if mark.exists():
        try:
            mark.unlink()
            sync_folder(mark.parent)  # a mark that came back after a power failure would spare the check that it is for
        except OSError as error:
            raise StoreRefused(
                f"{mark} cannot be removed ({error.strerror}): look at the rights of its folder"
            ) from None
    return check


def leave(database: Path, checked_at_ms: int, *, is_sound: bool) -> None:
    """Leaves the mark, when the last connection to the database is closed. Without it, the next start checks."""
    mark = mark_of(database)
    said = {"checked_at_ms": checked_at_ms, "is_sound": is_sound, "file": _identity(database)}
    try:
        replace_file(mark, json.dumps(said).encode())
    except OSError as error:
        log.warning("store.check_not_marked", path=str(mark), reason=error.strerror)


def mark_of(database: Path) -> Path:
    """Where the mark of a database is, whether there is one or not."""
    database = database.resolve()
    return database.with_name(f"{database.name}.checked")


def _identity(database: Path) -> dict[str, Any]:
    """Empty for a file that is not there, whose loss whoever opens it tells."""
    try:
        found = database.stat()
    except FileNotFoundError:
        return {}
    return {"inode": found.st_ino, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
