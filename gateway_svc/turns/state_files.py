"""Writing to the files of the state directory, whose disk may be full for a while."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway_svc.errors import StoreUnavailable


@contextmanager
def storing() -> Iterator[None]:
    """Makes an OSError of the body one that tells the caller to come again later.

    Raises:
        StoreUnavailable: the body raised an OSError.
    """
    try:
        yield
    except StoreUnavailable:
        raise
    except OSError as error:
        raise StoreUnavailable(f"the gateway's state directory cannot be written: {error.strerror}") from error


def append_whole(fd: int, data: bytes) -> None:
    """Appends data to a file, or nothing of it.

    Raises:
        StoreUnavailable: the disk refuses it.
    """
    with storing():
        end = os.lseek(fd, 0, os.SEEK_END)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(fd, end)  # the next line must not follow a part of this one
            raise


def why_not_writable(*folders: Path) -> str:
    """Why a file with some content cannot be made in one of folders; empty if it can in each."""
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(bytes(4096))
        except OSError as error:
            return f"{folder.name} in the state directory cannot be written: {error.strerror}"
    return ""
