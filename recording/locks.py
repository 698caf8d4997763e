"""Files that say by a lock whether their process is still there: the kernel lets go of it, however the process ends."""

import fcntl
import os
from pathlib import Path


def lock_file(path: Path) -> int | None:
    """The file descriptor that holds path's lock; the file is made if it is not there.

    None when another holds it, or the file or its folder has gone meanwhile.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None
