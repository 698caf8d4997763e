"""(c) The time of a row from record() to its ack, against one in-process INSERT with synchronous=FULL."""

import asyncio
import time
from pathlib import Path

from onrecord.audit.v1 import audit_pb2

from bench.figures import Figure, compare_at
from bench.rows import Baseline, make_rows, values_of
from bench.services import start_ledger
from bench.workers import Worker, answer, options, questions
from recording.delivery.connection import Target as Address
from recording.record import open_record
from recording.spool import Batch

_SLICE_SECONDS = 0.5


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures at 1, 100 and 1,000 rows a second."""
    figures = []
    with start_ledger(place) as ledger, Worker("bench.ack_time", place=str(place), address=ledger.address) as worker:
        for rate, seconds in ((1, 6 if short else 60), (100, 3 if short else 20), (1000, 2 if short else 20)):
            samples = worker.ask(rate=rate, seconds=seconds)
            for percent in (50, 99):
                name = f"(c) record() to ack against an INSERT at FULL, {rate:,} rows/s"
                figures.append(compare_at(name, "ms", percent, samples["acks"], samples["inserts"], None))
    return figures


async def _work(place: str, address: str) -> None:
    record = open_record(Path(place), Address(address))
    database = Baseline(Path(place) / "baseline.db")
    recorded: list[float] = []
    acked: list[float] = []
    acknowledge = record.spool.ack

    def note_ack(batch: Batch) -> None:
        acknowledge(batch)
        acked.extend([time.perf_counter()] * len(batch.payloads))

    def take(row: audit_pb2.AuditRow) -> None:
        recorded.append(time.perf_counter())
        record.logger.record(row)

    record.spool.ack = note_ack  # type: ignore[method-assign]  # the sender reports acks to nobody else
    record.start()
    take(next(make_rows(1)))  # opens the connection
    async for question in questions():
        await _wait_for_acks(recorded, acked)
        recorded.clear()
        acked.clear()
        inserts = []
        count = max(1, int(question["rate"] * _SLICE_SECONDS))
        for _ in range(int(question["seconds"] / 2 / _SLICE_SECONDS)):
            rows = list(make_rows(count))
            started = time.perf_counter()
            for number, row in enumerate(rows):
                await _sleep_until(started + number / count * _SLICE_SECONDS)
                take(row)
            await _sleep_until(started + _SLICE_SECONDS)
            for number, row in enumerate(rows):
                await _sleep_until(started + (1 + number / count) * _SLICE_SECONDS)
                begun = time.perf_counter()
                database.insert(values_of(row))
                inserts.append((time.perf_counter() - begun) * 1000)
            await _sleep_until(started + 2 * _SLICE_SECONDS)
        await _wait_for_acks(recorded, acked)
        acks = [(then - began) * 1000 for then, began in zip(acked, recorded, strict=True)]
        answer({"acks": acks, "inserts": inserts})


async def _wait_for_acks(recorded: list[float], acked: list[float]) -> None:
    while len(acked) < len(recorded):  # noqa: ASYNC110 - nothing tells that an ack has come
        await asyncio.sleep(0.001)


async def _sleep_until(then: float) -> None:
    await asyncio.sleep(max(0.0, then - time.perf_counter()))


if __name__ == "__main__":
    asyncio.run(_work(**options()))
