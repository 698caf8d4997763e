"""Rows a second to a synced commit: a ledger in PostgreSQL, one in SQLite, and COPY into the ledger's own tables.

The three take turns. COPY is by psycopg in one process, binary, a thousand rows a transaction, into the ledger's table
with all its indexes: it looks for no row that is there already, keeps no rollups and numbers no producers.

All share the cores, so the rates say what these take together. What a row takes of CPU time is told beside them: that
of PostgreSQL, of the ledger, and of who sends.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench.figures import Figure, Target, compare
from bench.postgres.services import cpu_seconds, start_replica, wait_until_summed
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
        measured = _measure(folder, server, producers, rows, rounds)
        figures += [
            compare(f"ingest, {name}, against COPY", "rows/s", measured.ours, measured.copied, TARGET),
            compare(f"ingest, {name}, against a ledger in SQLite", "rows/s", measured.ours, measured.sqlite, None),
            *(_cpu(part, ours, measured.cpu_of_copy[part]) for part, ours in measured.cpu.items()),
        ]
    return figures


def _cpu(part: str, ours: list[float], copied: list[float]) -> Figure:
    median, baseline = statistics.median(ours), statistics.median(copied)
    return Figure(f"... CPU time a row: {part}", "µs", median, baseline, median / baseline if baseline else None)


@dataclass
class _Measured:
    """Round by round."""

    ours: list[float] = field(default_factory=list)
    """Rows a second, as the next two."""
    copied: list[float] = field(default_factory=list)
    sqlite: list[float] = field(default_factory=list)
    cpu: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Microseconds a row, by the part; "all" is their sum."""
    cpu_of_copy: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def _measure(place: Path, server: PostgresServer, producers: int, rows: int, rounds: int) -> _Measured:
    url, bare = (server.create_database(f"{name}_{producers}") for name in ("ledger", "bare"))
    migrated = run_command("audit_svc", {"AUDIT_DB": bare}, "migrate", "up")
    if migrated.returncode:
        raise RuntimeError(migrated.stderr)
    found = _Measured()
    with ExitStack() as stack:
        postgres = stack.enter_context(start_replica(url))
        sqlite = stack.enter_context(start_ledger(place, AUDIT_SEAL_SECONDS="0"))
        senders = {
            service.address: [
                stack.enter_context(Worker("bench.throughput", address=service.address)) for _ in range(producers)
            ]
            for service in (postgres, sqlite)
        }
        for number in range(rounds):
            for service, rate in ((postgres, found.ours), (sqlite, found.sqlite)):
                workers = senders[service.address]
                ask_all(workers, prepare=rows // producers)
                parts = {
                    "PostgreSQL": lambda: cpu_seconds(server.pid),
                    "the ledger": lambda: cpu_seconds(postgres.pid),
                    "who sends": lambda: sum(cpu_seconds(worker.pid) for worker in workers),  # noqa: B023 - called here
                }
                with _spent(parts if service is postgres else {}, found.cpu, rows):
                    started = time.perf_counter()
                    ask_all(workers, prepare=0)
                    rate.append(rows / (time.perf_counter() - started))
                # What is made of the rows later would take from the next measure.
                wait_until_summed(url)
                wait_until_indexed(place / "audit.db")
            parts = {
                "PostgreSQL": lambda: cpu_seconds(server.pid),
                "the ledger": lambda: 0.0,
                "who sends": time.process_time,
            }
            made = _made(rows, number * rows)
            with _spent(parts, found.cpu_of_copy, rows):
                found.copied.append(_copy(bare, made))
    return found


@contextmanager
def _spent(parts: dict[str, Callable[[], float]], cpu: dict[str, list[float]], rows: int) -> Iterator[None]:
    """Adds the CPU time that each part takes in the body, in microseconds a row."""
    before = {part: spent() for part, spent in parts.items()}
    yield
    took = {part: (spent() - before[part]) / rows * 1e6 for part, spent in parts.items()}
    for part, each in {**took, **({"all": sum(took.values())} if took else {})}.items():
        cpu[part].append(each)


def _made(rows: int, first: int) -> list[tuple[object, ...]]:
    """Rows as COPY takes them. first: the position before the first."""
    return [(first + number, "", *_typed(values_of(row))) for number, row in enumerate(make_rows(rows))]


def _copy(url: str, made: list[tuple[object, ...]]) -> float:
    """The rows a second of transactions of 1,000, each a binary COPY."""
    with psycopg.connect(url, autocommit=True) as connection:
        columns: dict[str, str] = dict(
            connection.execute(
                "SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = 'tool_call_log'"
            ).fetchall()
        )
        names = [*_OWN, *NAMES]
        types = [columns[name] for name in names]
        started = time.perf_counter()
        for at in range(0, len(made), ROWS_A_TRANSACTION):
            with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY tool_call_log ({', '.join(names)}) FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(types)
                for row in made[at : at + ROWS_A_TRANSACTION]:
                    copy.write_row(row)
        return len(made) / (time.perf_counter() - started)


def _typed(values: tuple[str | int | None, ...]) -> tuple[str | int | None, ...]:
    return tuple(int(value) if isinstance(value, bool) else value for value in values)
