"""The command line: measures, and prints one table."""

import os
import platform
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Annotated

import apsw

from bench import (
    ack_time,
    agent_loop,
    client_turns,
    conversations,
    door,
    hook_latency,
    load_rows,
    load_turns,
    record_cost,
    recovery,
    rule_cost,
    sealing,
    throughput,
    tools,
)
from bench.figures import Figure, table
from demo.processes import REPOSITORY
from service_kit.terminal.command import BadParameter, Option, echo
from service_kit.terminal.program import run

MEASURES = {
    "a": throughput.measure,
    "b": record_cost.measure,
    "c": ack_time.measure,
    "d": agent_loop.measure,
    "e": recovery.measure,
    "f": tools.measure,
    "g": load_turns.measure,
    "h": load_rows.measure,
    "i": client_turns.measure,
    "j": rule_cost.measure,
    "k": conversations.measure,
    "l": door.measure,
    "m": hook_latency.measure,
    "n": sealing.measure,
}


def main(
    short: Annotated[bool, Option("--short", help="Less of everything: about a minute, and noisier.")] = False,
    only: Annotated[str, Option(help="Which, such as a,d.")] = ",".join(MEASURES),
) -> None:
    """Measure the figures that README quotes, each against its baseline in the same run on this machine."""
    chosen = only.split(",")
    if strangers := [name for name in chosen if name not in MEASURES]:
        raise BadParameter(f"{', '.join(strangers)}: there are {', '.join(MEASURES)}")
    # Beside the code and not in the system's folder for temporary files, which is often memory.
    state = REPOSITORY / ".state"
    state.mkdir(exist_ok=True)
    figures: list[Figure] = []
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=state, prefix="bench-", ignore_cleanup_errors=True) as folder:
        for name in chosen:
            place = Path(folder) / name
            place.mkdir()
            figures += MEASURES[name](place, short=short)
            echo(f"({name}) measured after {time.monotonic() - started:.0f} s", err=True)
    echo(
        f"Python {platform.python_version()} on {os.cpu_count()} cores. "
        f"SQLite {sqlite3.sqlite_version} as the baseline, {apsw.sqlite_lib_version()} in the ledger. "
        f"Load average {load:.1f} before, {os.getloadavg()[0]:.1f} after. A ratio is ours by the baseline's.\n"
    )
    echo(table(figures))


if __name__ == "__main__":
    run(main)
