"""Room in the database for what its WAL has.

A WAL is cut only when all of its pages are in the database. On a disk that it has filled there would be no room for
those that are new, and the disk would stay full for good. So the database gets its length before a commit, and is
longer than its pages by less than a chunk.
"""

import ctypes
import os
from pathlib import Path

import apsw

CHUNK_BYTES = 2**20

_SIZE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"


def lengthen_in_chunks(connection: apsw.Connection) -> None:
    """Has SQLite lengthen and cut the file by whole chunks. Every connection that writes or checkpoints needs it."""
    # Source: https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlchunksize
    chunk = ctypes.c_int(CHUNK_BYTES)
    connection.file_control("main", apsw.SQLITE_FCNTL_CHUNK_SIZE, ctypes.addressof(chunk))


def take_room(connection: apsw.Connection) -> None:
    """Lengthens the database to what the open transaction makes of it, where its file system can.

    Raises:
        FullError: the disk has no room for that.
    """
    ((bytes_,),) = connection.execute(_SIZE)
    size, database = ctypes.c_int64(bytes_), Path(connection.filename)
    try:
        missing = size.value - database.stat().st_size
        if missing <= 0:
            return
        disk = os.statvfs(database.parent)
    except OSError:  # it was moved or removed, which is told elsewhere
        return
    try:
        connection.file_control("main", apsw.SQLITE_FCNTL_SIZE_HINT, ctypes.addressof(size))
    except apsw.IOError as error:  # SQLite does not say why
        if disk.f_bavail * disk.f_frsize < missing + CHUNK_BYTES:
            raise apsw.FullError(f"the database cannot be made longer ({error})") from None
