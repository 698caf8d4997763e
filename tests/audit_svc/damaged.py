"""A ledger whose file is damaged."""

from pathlib import Path

from audit_svc.sqlite.open.connection import open_for_writing
from tests.audit_svc.empty import write_empty


def damage(database: Path) -> None:
    """Overwrites pages of a table that no start reads."""
    write_empty(database)
    connection = open_for_writing(database)
    connection.execute(
        "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 500) "
        "INSERT INTO session_labels SELECT value, '', 'key', hex(randomblob(200)) FROM n"
    )
    end = connection.pragma("page_count") * connection.pragma("page_size")
    connection.close()
    with database.open("r+b") as file:
        file.seek(end - 4096 * 3)
        file.write(b"\xff" * 4096 * 2)
