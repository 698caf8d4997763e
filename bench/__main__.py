"""The command line: measures, and prints one table."""

import sqlite3
from functools import partial
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
from bench.figures import table
from bench.measuring import measured
from service_kit.terminal.command import Option, echo
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
    short: Annotated[bool, Option("--short", help="Less of everything: a few minutes, and noisier.")] = False,
    only: Annotated[str, Option(help="Which, such as a,d.")] = ",".join(MEASURES),
) -> None:
    """Measure the figures that README quotes, each against its baseline in the same run on this machine."""
    figures, machine = measured({name: partial(measure, short=short) for name, measure in MEASURES.items()}, only)
    echo(
        f"{machine} SQLite {sqlite3.sqlite_version} as the baseline, {apsw.sqlite_lib_version()} in the ledger. "
        "A ratio is ours by the baseline's.\n"
    )
    echo(table(figures))


if __name__ == "__main__":
    run(main)
