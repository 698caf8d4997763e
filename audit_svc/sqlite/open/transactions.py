"""A transaction of the connection that writes: all of it, or nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import apsw


@contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Commits what its body writes, or takes it back when the body or the commit raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors of the disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
