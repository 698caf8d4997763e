"""Lock files that show whether a process is alive, since the kernel releases the lock however the process ends; folders
whose names outlive a power cut.
"""

import fcntl
import os
from pathlib import Path


def lock_file(path: Path, dir_fd: int | None = None) -> int | None:
    """Creates the file if needed and locks it; returns the descriptor that holds the lock.

    None if another process holds it, or if the file or its folder has been removed. With dir_fd, path is a name in the
    folder that is open there.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path, dir_fd=dir_fd)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def sync_folder(folder: Path) -> None:
    """Syncs a folder, which makes the names in it durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
