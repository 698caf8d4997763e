"""(h) The ledger with 64 producers at once: its throughput, and whether each producer gets its share."""

import asyncio
import statistics
import time
from bisect import bisect_right
from contextlib import ExitStack
from pathlib import Path

from uuid_utils import uuid7

from bench.figures import Figure, compare
from bench.memory import memory_mb
from bench.rows import make_rows
from bench.services import start_ledger, wait_until_indexed
from bench.throughput import batches_of, send
from bench.workers import Worker, answer, options, questions
from recording.delivery.connection import Connection
from recording.delivery.connection import Target as Address

PRODUCERS = 64
PROCESSES = 4


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of 64 producers, and of one that sends as many rows."""
    rows, rounds = (128_000, 1) if short else (512_000, 2)
    many, one, shares = [], [], []
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(place))
        workers = [stack.enter_context(Worker("bench.load_rows", address=ledger.address)) for _ in range(PROCESSES)]
        _all(workers[:1], 1, 1000)
        before = 0.0
        for _ in range(rounds):
            wait_until_indexed(place / "audit.db")
            one.append(rows / _all(workers[:1], 1, rows)[0][-1])
            # Starts after the first rows, which fill SQLite's cache.
            before = before or memory_mb("VmHWM", ledger.pid)
            wait_until_indexed(place / "audit.db")
            acks = _all(workers, PRODUCERS // PROCESSES, rows // PRODUCERS)
            many.append(rows / max(acked[-1] for acked in acks))
            first_done = min(acked[-1] for acked in acks)
            shares.append(min(bisect_right(acked, first_done) / len(acked) for acked in acks) * 100)
        grown = memory_mb("VmHWM", ledger.pid) - before
    name = f"(h) {PRODUCERS} producers at once"
    return [
        compare(f"{name}, against one with as many rows", "rows/s", many, one, None),
        Figure(f"{name}: what the last has sent when the first has sent all", "%", statistics.median(shares)),
        Figure(f"{name}: growth of the ledger's memory", "MB", grown),
    ]


def _all(workers: list[Worker], producers: int, rows: int) -> list[list[float]]:
    """When each producer's batches were acked, in seconds since the common start."""
    for worker in workers:
        worker.tell(producers=producers, rows=rows)
    for worker in workers:
        worker.hear()
    started = time.time()
    for worker in workers:
        worker.tell(producers=0, rows=0)
    return [[ack - started for ack in acks] for worker in workers for acks in worker.hear()]


class _Producer:
    """A stream that is open and in use before the measurement, as gateways stay connected for days."""

    def __init__(self, address: str, rows: int) -> None:
        self._link = Connection(Address(address))
        self._call = self._link.record()
        self._id = str(uuid7())
        self._batches = batches_of(make_rows(rows))

    async def begin(self) -> None:
        await send(self._call, self._id, batches_of(make_rows(1)))

    async def run(self) -> list[float]:
        acked = await send(self._call, self._id, self._batches)
        await self._link.aclose()
        return acked


async def _work(address: str) -> None:
    """Several producers, each with a connection of its own."""
    producers: list[_Producer] = []
    async for question in questions():
        if question["producers"]:
            producers = [_Producer(address, question["rows"]) for _ in range(question["producers"])]
            await asyncio.gather(*(producer.begin() for producer in producers))
            answer(len(producers))
        else:
            answer(await asyncio.gather(*(producer.run() for producer in producers)))


if __name__ == "__main__":
    asyncio.run(_work(**options()))
