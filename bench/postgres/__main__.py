"""`make bench-postgres`: what PostgreSQL costs in the place of SQLite and files, on a server that it starts itself."""

import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Annotated

from bench.figures import Figure, table
from bench.postgres import answers, failover, ingest, turns
from demo.postgres import PostgresServer
from demo.processes import REPOSITORY
from service_kit.terminal.command import BadParameter, Option, echo
from service_kit.terminal.program import run

MEASURES = {
    "ingest": ingest.measure,
    "answers": answers.measure,
    "failover": failover.measure,
    "turns": turns.measure,
}


def main(
    short: Annotated[bool, Option("--short", help="Less of everything: two minutes, and noisier.")] = False,
    only: Annotated[str, Option(help="Which, such as ingest,turns.")] = ",".join(MEASURES),
) -> None:
    """Measure a ledger and sessions in PostgreSQL against SQLite and files, in the same run on this machine."""
    chosen = only.split(",")
    if strangers := [name for name in chosen if name not in MEASURES]:
        raise BadParameter(f"{', '.join(strangers)}: there are {', '.join(MEASURES)}")
    state = REPOSITORY / ".state"
    state.mkdir(exist_ok=True)
    figures: list[Figure] = []
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=state, prefix="bench-postgres-", ignore_cleanup_errors=True) as folder:
        for name in chosen:
            place = Path(folder) / name
            place.mkdir()
            # A server of its own for each, with all settings as they come: commits are synced.
            with PostgresServer() as server:
                version = server.execute("SHOW server_version").split()[0]
                figures += MEASURES[name](place, server, short=short)
            echo(f"{name} measured after {time.monotonic() - started:.0f} s", err=True)
    echo(
        f"PostgreSQL {version}, Python {platform.python_version()} on {os.cpu_count()} cores, which all share. "
        f"Load average {load:.1f} before, {os.getloadavg()[0]:.1f} after. A ratio is ours by the baseline's.\n"
    )
    echo(table(figures))


if __name__ == "__main__":
    run(main)
