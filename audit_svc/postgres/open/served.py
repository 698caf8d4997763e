"""Whether a replica writes to a database."""

import time

from audit_svc.errors import DatabaseInUse
from audit_svc.postgres.open.connection import Connection, translated

LOOK_SECONDS = 2.0
"""A replica that writes says so more than once in so long."""
_BEATS = "SELECT l.epoch, l.beats, w.commits FROM ledger_lease l, ledger_writer w"


def refuse_served(connection: Connection) -> None:
    """Takes LOOK_SECONDS. Raises DatabaseInUse: a replica writes.

    It is told by its beats, and one that began just now by the number of what it wrote.
    """
    with translated():
        before = connection.execute(_BEATS).fetchall()
        time.sleep(LOOK_SECONDS)
        if connection.execute(_BEATS).fetchall() != before:
            raise DatabaseInUse("a replica of audit-svc writes to the database: stop all of them first")
