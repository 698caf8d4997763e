"""The command line: measures ours and the peers by turns, and prints one table."""

import datetime
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Annotated

from bench.figures import Figure, table
from bench.peers import ingest, steps, text
from demo.processes import REPOSITORY
from service_kit.terminal.command import BadParameter, Option, echo
from service_kit.terminal.program import run

MEASURES = {"steps": steps.measure, "text": text.measure, "ingest": ingest.measure}


def main(
    short: Annotated[bool, Option("--short", help="Less of everything, and noisier.")] = False,
    only: Annotated[str, Option(help="Which, such as steps,text.")] = ",".join(MEASURES),
) -> None:
    """Measure what others take for the same work; the first run installs them from PyPI."""
    chosen = only.split(",")
    if strangers := [name for name in chosen if name not in MEASURES]:
        raise BadParameter(f"{', '.join(strangers)}: there are {', '.join(MEASURES)}")
    state = REPOSITORY / ".state"
    state.mkdir(exist_ok=True)
    figures: list[Figure] = []
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=state, prefix="bench-") as folder:
        for name in chosen:
            place = Path(folder) / name
            place.mkdir()
            figures += MEASURES[name](place, short=short)
            echo(f"{name} measured after {time.monotonic() - started:.0f} s", err=True)
    left_out = ["Phoenix"]
    if "ingest" in chosen and ingest.postgres_programs() is None:
        left_out.append("PostgreSQL, which is not installed")
    echo(
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after. Left out: {', '.join(left_out)}.\n"
        "Of steps a ratio says how many times as long a peer takes; of rates, ours by the peer's.\n"
    )
    echo(table(figures))


if __name__ == "__main__":
    run(main)
