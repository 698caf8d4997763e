"""Which processes read what is in the WAL of a database, by the locks that they hold (Linux)."""

from contextlib import suppress
from pathlib import Path

_LOCKS = Path("/proc/locks")
_FIRST_BYTE, _LAST_BYTE = 124, 127
"""Of the -shm: WAL_READ_LOCK(1) to WAL_READ_LOCK(4) (https://sqlite.org/walformat.html). Who holds the one before these
reads the database alone, and is in nobody's way."""


def wal_readers(database: Path) -> set[int]:
    """The ids of processes that keep the WAL from beginning anew, this one too; none where that cannot be known."""
    found = set[int]()
    with suppress(OSError, ValueError):
        inode = str(database.with_name(f"{database.name}-shm").stat().st_ino)
        # A line: "1: POSIX  ADVISORY  READ  4242 fe:00:1234 124 124", the last two the first and the last byte
        for line in _LOCKS.read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1:2] != ["POSIX"] or words[5].rpartition(":")[2] != inode or words[7] == "EOF":
                continue
            if int(words[6]) <= _LAST_BYTE and int(words[7]) >= _FIRST_BYTE:
                found.add(int(words[4]))
    return found
