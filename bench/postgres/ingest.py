"""Rows a second to a synced commit: a ledger in PostgreSQL, one in SQLite, and COPY into the ledger's own tables.

The three take turns. COPY is by psycopg in one process, binary, a thousand rows a transaction, into the ledger's table
with all its indexes: it looks for no row that is there already, keeps no rollups and numbers no producers.
"""

import time
from contextlib import ExitStack
from pathlib import Path

import psycopg

from bench.figures import Figure, Target, compare
from bench.postgres.services import start_replica
from bench.rows import NAMES, ROWS_A_TRANSACTION, make_rows, values_of
from bench.services import start_ledger, wait_until_indexed
from bench.throughput import ask_all
from bench.workers import Worker
from demo.postgres import PostgresServer
from demo.processes import run_command

TARGET = Target(min_ratio=0.8)
_OWN = ("position", "recorded_by")


def measure(place: Path, server: PostgresServer, *, short: bool) -> list[Figure]:
    """The figures of one producer and of four."""
    rows, rounds = (20_000, 3) if short else (100_000, 6)
    figures = []
    for producers in (1, 4):
        folder = place / str(producers)
        folder.mkdir()
        name = "one producer" if producers == 1 else f"{producers} producers together"
        ours, copied, sqlite = _measure(folder, server, producers, rows, rounds)
        figures += [
            compare(f"ingest, {name}, against COPY", "rows/s", ours, copied, TARGET),
            compare(f"ingest, {name}, against a ledger in SQLite", "rows/s", ours, sqlite, None),
        ]
    return figures


def _measure(
    place: Path, server: PostgresServer, producers: int, rows: int, rounds: int
) -> tuple[list[float], list[float], list[float]]:
    """Rows a second of the ledger in PostgreSQL, of COPY, and of the ledger in SQLite, round by round."""
    url, bare = (server.create_database(f"{name}_{producers}") for name in ("ledger", "bare"))
    migrated = run_command("audit_svc", {"AUDIT_DB": bare}, "migrate", "up")
    if migrated.returncode:
        raise RuntimeError(migrated.stderr)
    rates: tuple[list[float], list[float], list[float]] = ([], [], [])
    with ExitStack() as stack:
        services = [
            stack.enter_context(start_replica(url)),
            stack.enter_context(start_ledger(place, AUDIT_SEAL_SECONDS="0")),
        ]
        workers = [
            [stack.enter_context(Worker("bench.throughput", address=service.address)) for _ in range(producers)]
            for service in services
        ]
        for number in range(rounds):
            for senders, rate in zip(workers, (rates[0], rates[2]), strict=True):
                ask_all(senders, prepare=rows // producers)
                started = time.perf_counter()
                ask_all(senders, prepare=0)
                rate.append(rows / (time.perf_counter() - started))
                wait_until_indexed(place / "audit.db")
            rates[1].append(_copy(bare, rows, number * rows))
    return rates


def _copy(url: str, rows: int, first: int) -> float:
    """The rows a second of transactions of 1,000, each a binary COPY. first: the position of the first row."""
    made = [(first + number, "", *_typed(values_of(row))) for number, row in enumerate(make_rows(rows))]
    with psycopg.connect(url, autocommit=True) as connection:
        columns: dict[str, str] = dict(
            connection.execute(
                "SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = 'tool_call_log'"
            ).fetchall()
        )
        names = [*_OWN, *NAMES]
        types = [columns[name] for name in names]
        started = time.perf_counter()
        for at in range(0, rows, ROWS_A_TRANSACTION):
            with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY tool_call_log ({', '.join(names)}) FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(types)
                for row in made[at : at + ROWS_A_TRANSACTION]:
                    copy.write_row(row)
        return rows / (time.perf_counter() - started)


def _typed(values: tuple[str | int | None, ...]) -> tuple[str | int | None, ...]:
    return tuple(int(value) if isinstance(value, bool) else value for value in values)
