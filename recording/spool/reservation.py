"""Allocates disk space for a file's next bytes, so that a full disk cannot refuse them."""

import ctypes
import errno
import os

_KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE of linux/falloc.h: the file's size, which marks its end, stays."""

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def keep_room(fd: int, offset: int, size: int) -> bool:
    """Allocates size bytes from offset on; see fallocate(2). False: this file system cannot do it.

    Raises:
        OSError: the disk is full.
    """
    if _fallocate is None:
        return False
    while _fallocate(fd, _KEEP_SIZE, offset, size) != 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
