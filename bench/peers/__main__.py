"""The command line: measures ours and the peers by turns, and prints one table."""

import datetime
from functools import partial
from typing import Annotated

from bench.figures import table
from bench.measuring import measured
from bench.peers import ingest, spans, steps, text
from demo.postgres import find_binaries
from service_kit.terminal.command import Option, echo
from service_kit.terminal.program import run

MEASURES = {"steps": steps.measure, "text": text.measure, "ingest": ingest.measure, "spans": spans.measure}


def main(
    short: Annotated[bool, Option("--short", help="Less of everything, and noisier.")] = False,
    only: Annotated[str, Option(help="Which, such as steps,text.")] = ",".join(MEASURES),
) -> None:
    """Measure what others take for the same work; the first run installs them from PyPI."""
    figures, machine = measured({name: partial(measure, short=short) for name, measure in MEASURES.items()}, only)
    left_out = "" if find_binaries() else " Left out: PostgreSQL, which is not installed."
    echo(
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}. {machine}{left_out}\n"
        "Of steps a ratio says how many times as long a peer takes; of rates, ours by the peer's.\n"
    )
    echo(table(figures))


if __name__ == "__main__":
    run(main)
