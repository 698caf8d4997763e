"""(n) The seal: what it takes of ingest, how far it is behind, how fast it seals and verifies, its size on disk."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from onrecord.audit.v1 import audit_pb2
from uuid_utils import uuid7

from audit_svc.seal import leaf
from audit_svc.seal.folder import CHECKPOINT, KEY, VERIFIER, folder_of, read_verifier
from audit_svc.seal.verify import verify
from audit_svc.sealing.places import DATABASE, FolderPlace
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.seal.index import INDEX
from bench.figures import Figure, Target, compare, percentile
from bench.rows import make_rows
from bench.services import start_ledger, wait_until_indexed
from bench.sizes import fill
from bench.throughput import batches_of, send
from bench.workers import Worker
from demo.processes import REPOSITORY
from recording.delivery.connection import Connection
from recording.delivery.connection import Target as Address

ROWS_A_SECOND, ROWS_A_BATCH = 1000, 50
LOOKS_A_SECOND = 200
PATIENCE_SECONDS = 60.0
VERIFIED, VERIFIED_A_SECOND = 3, 300_000


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of a ledger that is written, and of one that is at rest."""
    rows, starts, seconds, many = (20_000, 3, 5, 50_000) if short else (100_000, 8, 60, 1_000_000)
    (place / "lag").mkdir()
    lags = asyncio.run(_lags(place / "lag", seconds))
    return [
        _ingest(place / "ingest", rows, starts),
        Figure("(n) ack to a signed checkpoint at 1,000 rows/s, p50", "s", percentile(lags, 50)),
        Figure(
            "(n) ack to a signed checkpoint at 1,000 rows/s, p99", "s", percentile(lags, 99), target=Target(max_ours=2)
        ),
        *_at_rest(place / "rest", many),
    ]


def _ingest(place: Path, rows: int, starts: int) -> Figure:
    """By turns with the seal and without it, each time on a new ledger; the order of the two changes."""
    speeds: dict[str, list[float]] = {"1": [], "0": []}
    for start in range(starts):
        for seconds in ("1", "0") if start % 2 else ("0", "1"):
            speeds[seconds].append(_speed(place / f"{start}-{seconds}", rows, seconds))
    return compare(
        "(n) to a FULL commit with the seal, against without",
        "rows/s",
        speeds["1"],
        speeds["0"],
        Target(min_ratio=0.95),
    )


def _speed(place: Path, rows: int, seal_seconds: str) -> float:
    place.mkdir(parents=True)
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(place, AUDIT_SEAL_SECONDS=seal_seconds))
        worker = stack.enter_context(Worker("bench.throughput", address=ledger.address))
        worker.ask(prepare=2000)
        worker.ask(prepare=0)
        wait_until_indexed(place / "audit.db")
        worker.ask(prepare=rows)
        started = time.perf_counter()
        worker.ask(prepare=0)
        return rows / (time.perf_counter() - started)


async def _lags(place: Path, seconds: int) -> list[float]:
    """Of each batch, the seconds from its ack until a checkpoint holds it."""
    with start_ledger(place) as ledger:
        link = Connection(Address(ledger.address))
        call, producer = link.record(), str(uuid7())
        acks: list[tuple[int, float]] = []
        """How many rows the ledger had, and when."""
        looking = asyncio.create_task(_watch(place, seconds * ROWS_A_SECOND))
        begun = time.time()
        for number, rows in enumerate(_parts(seconds * ROWS_A_SECOND)):
            await asyncio.sleep(max(0.0, begun + number * ROWS_A_BATCH / ROWS_A_SECOND - time.time()))
            acked = await send(call, producer, batches_of(rows, number * ROWS_A_BATCH + 1))
            acks.append(((number + 1) * ROWS_A_BATCH, acked[-1]))
        sealed = await asyncio.wait_for(looking, PATIENCE_SECONDS)
        await link.aclose()
    return [next(when for size, when in sealed if size >= rows) - acked for rows, acked in acks]


def _parts(count: int) -> Iterator[list[audit_pb2.AuditRow]]:
    made = make_rows(count)
    for _ in range(0, count, ROWS_A_BATCH):
        yield [next(made) for _ in range(ROWS_A_BATCH)]


async def _watch(place: Path, rows: int) -> list[tuple[int, float]]:
    """The sizes that checkpoints tell, and when each was first seen."""
    path, seen = folder_of(place / "audit.db") / CHECKPOINT, [(0, 0.0)]
    while seen[-1][0] < rows:
        size = int(path.read_text("utf-8").split("\n")[1]) if path.exists() else 0
        if size > seen[-1][0]:
            seen.append((size, time.time()))
        await asyncio.sleep(1 / LOOKS_A_SECOND)
    return seen


def _at_rest(place: Path, rows: int) -> Iterator[Figure]:
    """A ledger that has its rows before it is sealed, by the sealing process and by `verify` in this one."""
    place.mkdir(parents=True)
    database = place / "audit.db"
    with closing(open_for_writing(database)) as connection:
        fill(connection, rows)
    folder = folder_of(database)
    command: list[str | Path] = [sys.executable, "-m", "audit_svc.sealing", folder, folder / KEY, "", "1"]
    began, before = time.perf_counter(), os.times()
    environment = os.environ | {DATABASE: str(database)}
    subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, cwd=REPOSITORY, check=True
    )
    took, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    yield Figure(f"(n) {rows:,} rows sealed at once", "rows/s", rows / took)
    yield Figure(f"(n) {rows:,} rows sealed at once, CPU time a row", "µs", cpu / rows * 1e6)
    yield _verifying(database, folder, rows)
    tiles = sum(path.stat().st_size for path in (folder / "tile").rglob("*") if path.is_file())
    yield Figure("(n) tiles of a row on disk", "bytes", tiles / rows)
    yield Figure("(n) index of the runs of a row", "bytes", (folder / INDEX).stat().st_size / rows)


def _verifying(database: Path, folder: Path, rows: int) -> Figure:
    """By turns with reading the columns that are sealed."""
    took: dict[str, list[float]] = {"verify": [], "read": []}
    kind, verifier = leaf.BY_NAME["tool_call"], read_verifier(str(folder / VERIFIER))
    place = FolderPlace(database, folder)
    with closing(open_for_reading(database)) as connection, closing(place.open_ledger()) as ledger:
        for _ in range(VERIFIED):
            start = time.process_time()
            for _ in connection.execute(f"SELECT salt, {', '.join(kind.columns)} FROM {kind.table}"):
                pass
            took["read"].append((time.process_time() - start) / rows * 1e6)
            start = time.process_time()
            report = verify(ledger, place.open_log(), verifier, [])
            took["verify"].append((time.process_time() - start) / rows * 1e6)
            if report.rows != rows or report.problems:
                raise RuntimeError(f"not as it was sealed: {report}")
    name = f"(n) {rows:,} rows verified, CPU time a row, against reading them"
    return compare(name, "µs", took["verify"], took["read"], Target(max_ours=1e6 / VERIFIED_A_SECOND))
