"""Whether this process has the rights to write a database: its file, what belongs to it while it is open, its folder.

What is open can be written without them. So a service that lost them would go on, and fail at its next start. Root, who
needs none, keeps to those of a file's owner: one that nobody may write is kept as it is.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

SIDE_FILES = ("-wal", "-shm", ".lock")
"""What belongs to a database that is open: without one of them another process may damage it, or open it too."""


def written_paths(database: Path) -> list[Path]:
    """The folder and the files that who serves a database must be able to write. database: without links."""
    return [database.parent, database, *(database.with_name(database.name + suffix) for suffix in SIDE_FILES)]


def why_unwritable(paths: Iterable[Path]) -> str:
    """Which of them cannot be written, why, and what to do; empty while all can. What is not there is left out."""
    for path in paths:
        try:
            found = path.stat()
            if os.access(path, os.R_OK | os.W_OK | (os.X_OK if stat.S_ISDIR(found.st_mode) else 0)):
                if os.geteuid() or stat.S_ISDIR(found.st_mode) or found.st_mode & stat.S_IWUSR:
                    continue
                mode = stat.S_IMODE(found.st_mode)
                return f"{path} has mode {mode:03o}: give its owner the right to write it, if it is to be written"
            if os.statvfs(path).f_flag & os.ST_RDONLY:
                return f"{path} is on a read-only file system: mount it for writing"
            why = f"it belongs to user {found.st_uid} and has mode {stat.S_IMODE(found.st_mode):03o}"
        except FileNotFoundError:
            continue
        except OSError as error:
            why = str(error.strerror)
        return (
            f"{path} cannot be written by user {os.geteuid()} ({why}): give this user the rights to read and write it"
        )
    return ""
