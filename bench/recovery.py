"""(e) Memory and time to deliver the rows that piled up while the ledger was down."""

import asyncio
import time
from pathlib import Path

from bench.figures import Figure, Target
from bench.memory import memory_mb
from bench.rows import Baseline, make_rows, values_of
from bench.services import closed_port, start_ledger
from bench.workers import Worker, answer, options, questions
from recording.delivery.connection import Target as Address
from recording.record import open_record

_WARM_UP_ROWS = 1000
_GRACE_SECONDS = 600.0


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of a million rows (short: 100,000). Half of the baseline runs before, half after."""
    rows = 100_000 if short else 1_000_000
    sample = [values_of(row) for row in make_rows(rows // 5)]
    port = closed_port()
    sqlite = Baseline(place / "baseline.db")
    with Worker("bench.recovery", place=str(place), address=f"127.0.0.1:{port}") as worker:
        spooling = worker.ask(record=rows)
        before = sqlite.insert_many(sample[::2])
        with start_ledger(place, port):
            sending = worker.ask(record=0)
        after = sqlite.insert_many(sample[1::2])
    sqlite.close()
    rate, baseline = rows / sending["seconds"], 2 / (1 / before + 1 / after)
    name = f"(e) {rows:,} rows"
    return [
        Figure(f"{name} spooled while the ledger is down", "s", spooling["seconds"]),
        Figure(f"{name} sent when it is back", "s", sending["seconds"], rows / baseline, baseline / rate),
        Figure(f"{name}: growth of the gateway's memory", "MB", sending["grown_mb"], target=Target(max_ours=50)),
    ]


async def _work(place: str, address: str) -> None:
    record = open_record(Path(place), Address(address))
    record.start()
    memory_at_first = 0.0
    async for question in questions():
        started = time.perf_counter()
        if question["record"]:
            for number, row in enumerate(make_rows(question["record"])):
                record.logger.record(row)
                if number == _WARM_UP_ROWS:
                    memory_at_first = memory_mb("VmRSS")
                if number % 100 == 0:
                    await asyncio.sleep(0)
        elif not await record.drain(_GRACE_SECONDS):  # a drain does not wait for the end of a backoff
            raise RuntimeError("the rows were not sent in time")
        seconds = time.perf_counter() - started
        answer({"seconds": seconds, "grown_mb": memory_mb("VmHWM") - memory_at_first})


if __name__ == "__main__":
    asyncio.run(_work(**options()))
