"""(b) What record() takes of the agent's thread, against one INSERT per call in process."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.figures import Figure, Target, compare_at
from bench.rows import Baseline, make_rows, values_of
from bench.services import start_ledger
from bench.workers import Worker, answer, options, questions
from recording.delivery.connection import Target as Address
from recording.record import open_record

_ROWS = 500
_ROWS_AT_ONCE = 10
_PAUSE_SECONDS = 0.002

Item = TypeVar("Item")


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures against synchronous NORMAL and FULL, with a sender and a ledger at work."""
    with start_ledger(place) as ledger, Worker("bench.record_cost", place=str(place), address=ledger.address) as worker:
        samples = worker.ask(rounds=6 if short else 40)
    figures = []
    for synchronous in ("NORMAL", "FULL"):
        for percent, max_us in ((50, 15), (99, 100)):
            target = Target(max_ours=max_us, max_ratio=0.2) if synchronous == "FULL" else None
            name = f"(b) record() against an INSERT at {synchronous}"
            figures.append(compare_at(name, "µs", percent, samples["record"], samples[synchronous], target))
    return figures


async def _work(place: str, address: str) -> None:
    record = open_record(Path(place), Address(address), sync="interval")
    record.start()
    databases = {name: Baseline(Path(place) / f"{name}.db", name) for name in ("NORMAL", "FULL")}
    async for question in questions():
        samples: dict[str, list[float]] = {"record": [], "NORMAL": [], "FULL": []}
        for _ in range(question["rounds"]):
            rows = list(make_rows(_ROWS))
            samples["record"] += await _time(record.logger.record, rows)
            while record.counters.acked < record.counters.accepted:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.01)
            for name, database in databases.items():
                samples[name] += await _time(database.insert, [values_of(row) for row in rows])
        answer(samples)


async def _time(act: Callable[[Item], None], items: Sequence[Item]) -> list[float]:
    """Microseconds of each call. The event loop gets its turn between them, as it does between an agent's calls."""
    samples = []
    for number, item in enumerate(items, 1):
        started = time.perf_counter_ns()
        act(item)
        samples.append((time.perf_counter_ns() - started) / 1000)
        if number % _ROWS_AT_ONCE == 0:
            await asyncio.sleep(_PAUSE_SECONDS)
    return samples


if __name__ == "__main__":
    asyncio.run(_work(**options()))
