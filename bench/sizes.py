"""Bytes a row on disk: what the table, each index and each rollup takes, and what a commit writes for it.

python -m bench.sizes              of a ledger made of tool calls as in (a), over 30 days
python -m bench.sizes --db FILE    of a ledger that is there
"""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.usage import Usage
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.text.text_index import index_rows
from audit_svc.sqlite.write.inserts import Inserts
from bench.rows import make_rows
from demo.processes import REPOSITORY
from recording.rows import ROW_VERSION
from service_kit.terminal.command import BadParameter, Option, echo
from service_kit.terminal.printing import Printer, Table
from service_kit.terminal.program import run

COMMIT_ROWS = 1000
DAYS = 30


def main(
    db: Annotated[Path | None, Option(help="A ledger; without it one is made.")] = None,
    rows: Annotated[int, Option(help="Tool calls of the one that is made.")] = 300_000,
) -> None:
    """Print the size of a tool call on disk, by table and index."""
    if db is not None:
        with closing(open_for_reading(db)) as connection:
            show(connection)
        return
    state = REPOSITORY / ".state"
    state.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=state, prefix="bench-") as folder,
        closing(open_for_writing(Path(folder) / "audit.db")) as connection,
    ):
        fill(connection, rows)
        show(connection)


def fill(connection: apsw.Connection, count: int) -> None:
    """Makes a ledger of count tool calls, spread over DAYS."""
    migrate.up(connection, migrate.load_migrations())
    inserts = Inserts(connection)
    batch: list[audit_pb2.AuditRow] = []
    for number, row in enumerate(make_rows(count), 1):
        row.created_at_ms -= (count - number) * DAYS * 86_400_000 // count
        batch.append(row)
        if len(batch) == COMMIT_ROWS or number == count:
            accepted = read_batch(audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=batch), row.created_at_ms)
            connection.execute("BEGIN IMMEDIATE")
            inserts.write([(accepted, Usage(accepted.tool_calls, accepted.model_requests))], row.created_at_ms)
            connection.execute("COMMIT")
            inserts.committed()
            batch = []
    for _ in index_rows(connection):
        pass


def sizes(connection: apsw.Connection) -> list[tuple[str, int]]:
    """The bytes of tables and indexes, largest first; free pages are a separate entry."""
    found: list[tuple[str, int]] = [
        (str(name), int(size))
        for name, size in connection.execute(
            "SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE ORDER BY pgsize DESC"
        )
    ]
    return [*found, ("free pages", _whole(connection) - sum(size for _, size in found))]


def show(connection: apsw.Connection) -> None:
    """Prints the table."""
    rows = int(connection.execute("SELECT count(*) FROM tool_call_log").fetchall()[0][0])  # type: ignore[arg-type] # a count
    if not rows:
        raise BadParameter("the ledger has no tool calls")
    whole = _whole(connection)
    table = Table("what", "bytes a tool call", "share")
    for name, size in sizes(connection):
        if size / whole >= 0.0005:
            table.add_row(name, f"{size / rows:.1f}", f"{size / whole:.1%}")
    table.add_row("together", f"{whole / rows:.1f}", "100.0%")
    Printer().print(table)
    echo(f"{rows:,} tool calls, {whole:,} bytes in pages of {connection.pragma('page_size'):,}")


def _whole(connection: apsw.Connection) -> int:
    return int(connection.pragma("page_count")) * int(connection.pragma("page_size"))


if __name__ == "__main__":
    run(main)
