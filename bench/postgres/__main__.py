"""`make bench-postgres`: what PostgreSQL costs in the place of SQLite and files, on a server that it starts itself."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from bench.figures import Figure, table
from bench.measuring import measured
from bench.postgres import answers, failover, ingest, stops, turns
from demo.postgres import PostgresServer
from service_kit.terminal.command import Option, echo
from service_kit.terminal.program import run

Measure = Callable[..., list[Figure]]

MEASURES = {
    "ingest": ingest.measure,
    "answers": answers.measure,
    "failover": failover.measure,
    "turns": turns.measure,
    "stops": stops.measure,
}


def main(
    short: Annotated[bool, Option("--short", help="Less of everything: two minutes, and noisier.")] = False,
    only: Annotated[str, Option(help="Which, such as ingest,turns.")] = ",".join(MEASURES),
) -> None:
    """Measure a ledger and sessions in PostgreSQL against SQLite and files, in the same run on this machine."""
    versions: list[str] = []

    def on_a_server(measure: Measure, place: Path) -> list[Figure]:
        # A server of its own for each, with all settings as they come: commits are synced.
        with PostgresServer() as server:
            versions[:] = server.execute("SHOW server_version").split()[:1]
            return measure(place, server, short=short)

    figures, machine = measured({name: partial(on_a_server, measure) for name, measure in MEASURES.items()}, only)
    echo(f"PostgreSQL {versions[0]}. {machine} All share the cores. A ratio is ours by the baseline's.\n")
    echo(table(figures))


if __name__ == "__main__":
    run(main)
