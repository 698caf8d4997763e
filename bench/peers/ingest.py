"""Rows to a synced commit: ours over gRPC, against COPY into PostgreSQL where its programs are there."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figures import Figure, compare
from bench.rows import NAMES, ROWS_A_TRANSACTION, make_rows, values_of
from bench.services import closed_port, start_ledger, wait_until_indexed
from bench.workers import Worker
from demo.processes import environment

INDEXED = ("session_id", "turn_id", "engine", "tool_name", "outcome", "created_at")
"""The table of the peer has an index of each of these and its key; the ledger has eight, and counts usage as well."""


def postgres_programs() -> Path | None:
    """The folder with initdb and postgres; None where PostgreSQL is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    try:
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    folder = Path(asked.stdout.strip())
    return folder if (folder / "initdb").exists() else None


def measure(place: Path, *, short: bool) -> list[Figure]:
    """One producer against one connection, by turns; nothing where there is no PostgreSQL."""
    programs = postgres_programs()
    if programs is None:
        return []
    rows, rounds = (20_000, 3) if short else (100_000, 6)
    pairs: list[tuple[float, float]] = []
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(place))
        worker = stack.enter_context(Worker("bench.throughput", address=ledger.address))
        psql = stack.enter_context(_postgres(programs))
        for _ in range(rounds):
            wait_until_indexed(place / "audit.db")
            theirs = _copy(psql, rows)
            worker.ask(prepare=rows)
            started = time.perf_counter()
            worker.ask(prepare=0)
            pairs.append((rows / (time.perf_counter() - started), theirs))
    version = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    ours, theirs_all = zip(*pairs, strict=True)
    return [compare(f"ingest: against COPY, PostgreSQL {version.split()[2]}", "rows/s", ours, theirs_all, None)]


@contextmanager
def _postgres(programs: Path) -> Iterator[list[str]]:
    """A cluster of its own with the settings it comes with; gives psql's command."""
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        if user:
            shutil.chown(folder, user)
        data, port = f"{folder}/data", closed_port()
        initdb = [str(programs / "initdb"), "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(initdb, check=True, capture_output=True, user=user, cwd=folder)
        command = [str(programs / "postgres"), "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder]
        psql = [str(programs / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "bench", "-d", "postgres", "-qX"]
        with subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_until_ready([str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)])
                _tell(psql, _schema())
                yield psql
            finally:
                process.terminate()


def _wait_until_ready(command: list[str]) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(command, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError("PostgreSQL is not ready after 60 s")
        time.sleep(0.1)


def _schema() -> str:
    sample = values_of(next(iter(make_rows(1))))
    kinds = ["bigint" if isinstance(value, int) else "text" for value in sample]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, kinds, strict=True))
    indexes = "".join(f"CREATE INDEX ON calls ({name});" for name in INDEXED)
    return f"CREATE TABLE calls ({columns}, PRIMARY KEY (id));{indexes}"


def _copy(psql: list[str], rows: int) -> float:
    """The rows a second of transactions of 1,000, each a COPY."""
    lines = ["\t".join(map(_text, values_of(row))) for row in make_rows(rows)]
    parts = (lines[first : first + ROWS_A_TRANSACTION] for first in range(0, rows, ROWS_A_TRANSACTION))
    told = "".join("COPY calls FROM STDIN;\n" + "\n".join(part) + "\n\\.\n" for part in parts)
    started = time.perf_counter()
    _tell(psql, told)
    return rows / (time.perf_counter() - started)


def _text(value: str | int | None) -> str:
    return "\\N" if value is None else str(int(value) if isinstance(value, bool) else value)


def _tell(psql: list[str], said: str) -> None:
    subprocess.run(
        [*psql, "-v", "ON_ERROR_STOP=1"], input=said.encode(), env=environment({}), check=True, capture_output=True
    )
