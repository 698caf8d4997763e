"""Free pages of the file, given back to the file system some at a time."""

from audit_svc.sqlite.open.connection import Connection

BATCH_PAGES = 1000
"""Free pages that a transaction gives back."""
INCREMENTAL = 2
"""What `PRAGMA auto_vacuum` says of a file that can give pages back one by one."""


def give_space_back(connection: Connection) -> bool:
    """Gives some back, where the file was made with incremental auto-vacuum; whether nothing is left to give."""
    connection.execute(f"PRAGMA incremental_vacuum({BATCH_PAGES})").fetchall()
    return bool(connection.pragma("auto_vacuum") != INCREMENTAL or connection.pragma("freelist_count") == 0)
