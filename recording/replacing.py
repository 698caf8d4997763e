"""A small file that is replaced as a whole: who reads it finds the old content or the new one."""

import os
from contextlib import suppress
from pathlib import Path

from recording.framing import write_whole


def replace_file(path: Path, data: bytes, *, synced: bool = True, mode: int = 0o600) -> None:
    """Puts data in the place of a file, or makes it. One writer at a time: the draft has one name.

    synced: whether the data is on the disk when this returns; for the name, see locks.sync_folder().
    mode: of the file, for this user alone by default.

    Raises:
        OSError: it could not be written; the file is what it was.
    """
    draft = path.with_suffix(".draft")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            write_whole(fd, data)
            if synced:
                os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # what a descriptor was of is not told
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
