"""A gateway whose disk takes what is said in sessions badly, by FAULTS_WRITES.

`short`: each write takes a few bytes. `full`: the disk is full for a moment at one write in ten, after a part of it.
"""

import errno
import os
import random
from pathlib import Path
from typing import Any

from gateway_svc.__main__ import main


def fail(kind: str) -> None:
    """Makes writes to the files of sessions fail so."""
    chance, full = random.Random(), [False]
    write: Any = os.write

    def faulty(fd: int, data: Any) -> Any:
        if "/sessions/owner-" not in str(Path(f"/proc/self/fd/{fd}").readlink()):
            return write(fd, data)
        if kind == "short":
            return write(fd, bytes(data[: chance.randint(1, 40)]))
        if full[0] or (len(data) > 1 and chance.random() < 0.1):
            full[0] = not full[0]
            if full[0] and (part := chance.randrange(len(data))):
                return write(fd, bytes(data[:part]))
            full[0] = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    os.write = faulty


if __name__ == "__main__":
    if kind := os.environ.get("FAULTS_WRITES"):
        fail(kind)
    main()
