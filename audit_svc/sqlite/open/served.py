"""The marker beside a database that has been served: if it exists, a missing database is a loss."""

import os
from pathlib import Path

from audit_svc.errors import DatabaseVanished
from recording.log import get_logger

log = get_logger(__name__)

_TEXT = "audit-svc has served {name} in this folder. Where it is missing, it is not made anew without --create.\n"


def marker_of(database: Path) -> Path:
    """Where the marker of a database is, whether there is one or not."""
    database = database.resolve()
    return database.with_name(database.name + ".served")


def refuse_vanished(database: Path) -> None:
    """Call it before a database may be made.

    Raises:
        DatabaseVanished: one was served at this path, and is missing or empty.
    """
    if is_missing(database) and marker_of(database).exists():
        raise DatabaseVanished(
            f"{database} was served before and is {'empty' if database.exists() else 'not there any more'}: restore a "
            "backup, or look where the file went; `audit-svc serve --create` begins an empty ledger in its place"
        )


def is_missing(database: Path) -> bool:
    """Whether opening would make a new database: there is no file, or an empty one."""
    try:
        return database.stat().st_size == 0
    except FileNotFoundError:
        return True


def mark_served(database: Path) -> None:
    """Creates the marker if it is missing. A full disk is logged, and delays nothing."""
    marker = marker_of(database)
    if marker.exists():
        return
    try:
        marker.touch(mode=0o600)
        marker.write_bytes(os.fsencode(_TEXT.format(name=database.name)))
    except OSError as error:
        log.warning("store.not_marked", path=str(marker), reason=error.strerror)
