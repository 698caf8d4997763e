"""A locked spool folder. Its files are reached through its descriptor, even if its name has changed.

The lock is a flock of the folder itself, so that deleting files cannot release it. The file `lock` is locked too, for
file systems that cannot lock folders (NFS) and for earlier versions, which lock nothing else.

A folder whose rows another process sends has a file `acked`: who reads its rows holds that file's lock, and writes into
it how far they are acked. Whoever takes the folder over needs both locks.
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from recording.locks import lock_file

LOCK = "lock"
ACKED = "acked"
FILE_MODE = 0o600
FOLDER_MODE = 0o700

_LOCKS_NO_FOLDERS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class HeldFolder:
    """A folder whose lock this process holds."""

    def __init__(self, path: Path, fd: int, lock: int) -> None:
        """Takes ownership of the descriptors of the folder and of its locked lock file. See hold()."""
        self.path = path
        self._fd = fd
        self._lock = lock
        self._reading: int | None = None

    @classmethod
    def hold(cls, path: Path) -> "HeldFolder | None":
        """Locks the folder at path. None if another process holds it, or it is gone, or not a folder.

        Raises:
            OSError: it cannot be opened.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            lock = lock_file(Path(LOCK), fd) if _lock_folder(fd) else None
            if lock is None:
                os.close(fd)
                return None
        except BaseException:
            os.close(fd)
            raise
        held = cls(path, fd, lock)
        if held.is_there() and held._hold_reading():
            return held
        held.close()
        return None

    def _hold_reading(self) -> bool:
        """Locks the file `acked`, if there is one. False if another process reads the rows."""
        if not self.has(ACKED):
            return True
        self._reading = lock_file(Path(ACKED), self._fd)
        return self._reading is not None

    def has(self, name: str) -> bool:
        """Whether it holds a file with this name."""
        try:
            os.stat(name, dir_fd=self._fd)
        except OSError:
            return False
        return True

    def is_there(self) -> bool:
        """Whether path still names this folder, and nobody else holds it. A missing lock file is created again."""
        if not _same(self._fd, self.path, None):
            return False
        if not _same(self._lock, Path(LOCK), self._fd):
            try:
                lock = lock_file(Path(LOCK), self._fd)
            except OSError:  # out of descriptors or of disk: that does not mean that another process has it
                return True
            if lock is None:
                return False
            os.close(self._lock)
            self._lock = lock
        return True

    def names(self) -> list[str]:
        """The names of the files in it."""
        return os.listdir(self._fd)  # noqa: PTH208 - a Path knows no descriptor

    def open(self, name: str, flags: int) -> int:
        """A descriptor of one of its files.

        Raises:
            OSError: as os.open(); FileNotFoundError also if the folder was removed.
        """
        return os.open(name, flags, FILE_MODE, dir_fd=self._fd)

    def holds(self, name: str, fd: int) -> bool:
        """Whether the file with this name is the open file fd."""
        return _same(fd, Path(name), self._fd)

    def unlink(self, name: str) -> None:
        """Removes a file, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def move(self, name: str, to: Path) -> None:
        """Moves a file out of it.

        Raises:
            OSError: it cannot be moved; FileNotFoundError if it is not there.
        """
        os.rename(name, to, src_dir_fd=self._fd)

    def sync(self) -> None:
        """Syncs the folder, which makes the names in it durable.

        Raises:
            OSError: they did not reach the disk.
        """
        os.fsync(self._fd)

    def close(self) -> None:
        """Releases it."""
        for fd in self.descriptors():
            os.close(fd)

    def descriptors(self) -> list[int]:
        """The descriptors that hold it."""
        return [fd for fd in (self._reading, self._lock, self._fd) if fd is not None]


def is_free(path: Path) -> bool:
    """Whether no process writes to the folder at path."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        lock = lock_file(Path(LOCK), fd) if _lock_folder(fd) else None
        if lock is not None:
            os.close(lock)
        return lock is not None
    except OSError:
        return False
    finally:
        os.close(fd)


def _lock_folder(fd: int) -> bool:
    """False if another process holds the lock. True if this file system cannot lock folders: the lock file decides."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _LOCKS_NO_FOLDERS:
            raise
    return True


def _same(fd: int, path: Path, dir_fd: int | None) -> bool:
    """Whether path is the open file fd. If it exists but cannot be checked, it counts as the same."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, dir_fd=dir_fd))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
