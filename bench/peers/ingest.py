"""Rows to a synced commit: ours over gRPC, against COPY into PostgreSQL where its programs are there."""

import time
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, compare
from bench.rows import NAMES, ROWS_A_TRANSACTION, make_rows, values_of
from bench.services import start_ledger, wait_until_indexed
from bench.workers import Worker
from demo.postgres import PostgresServer, find_binaries

INDEXED = ("session_id", "turn_id", "engine", "tool_name", "outcome", "created_at")
"""The table of the peer has an index of each of these and its key; the ledger has eight, and counts usage as well."""


def measure(place: Path, *, short: bool) -> list[Figure]:
    """One producer against one connection, by turns; nothing where there is no PostgreSQL."""
    if find_binaries() is None:
        return []
    rows, rounds = (20_000, 3) if short else (100_000, 6)
    pairs: list[tuple[float, float]] = []
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(place))
        worker = stack.enter_context(Worker("bench.throughput", address=ledger.address))
        server = stack.enter_context(PostgresServer())
        server.execute(_schema())
        for _ in range(rounds):
            wait_until_indexed(place / "audit.db")
            theirs = _copy(server, rows)
            worker.ask(prepare=rows)
            started = time.perf_counter()
            worker.ask(prepare=0)
            pairs.append((rows / (time.perf_counter() - started), theirs))
        version = server.execute("SHOW server_version").split()[0]
    ours, theirs_all = zip(*pairs, strict=True)
    return [compare(f"ingest: against COPY, PostgreSQL {version}", "rows/s", ours, theirs_all, None)]


def _schema() -> str:
    sample = values_of(next(iter(make_rows(1))))
    kinds = ["bigint" if isinstance(value, int) else "text" for value in sample]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, kinds, strict=True))
    indexes = "".join(f"CREATE INDEX ON calls ({name});" for name in INDEXED)
    return f"CREATE TABLE calls ({columns}, PRIMARY KEY (id));{indexes}"


def _copy(server: PostgresServer, rows: int) -> float:
    """The rows a second of transactions of 1,000, each a COPY."""
    lines = ["\t".join(map(_text, values_of(row))) for row in make_rows(rows)]
    parts = (lines[first : first + ROWS_A_TRANSACTION] for first in range(0, rows, ROWS_A_TRANSACTION))
    told = "".join("COPY calls FROM STDIN;\n" + "\n".join(part) + "\n\\.\n" for part in parts)
    started = time.perf_counter()
    server.run(told)
    return rows / (time.perf_counter() - started)


def _text(value: str | int | None) -> str:
    return "\\N" if value is None else str(int(value) if isinstance(value, bool) else value)
