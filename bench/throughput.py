"""(a) Rows a second over gRPC to a synced commit, against sqlite3 in process."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from onrecord.audit.v1 import audit_pb2
from uuid_utils import uuid7

from bench.figures import Figure, Target, compare
from bench.rows import Baseline, make_rows, values_of
from bench.services import start_ledger, wait_until_indexed
from bench.workers import Worker, answer, options, questions
from recording.delivery.connection import Connection, RecordCall, encode_request, range_of
from recording.delivery.connection import Target as Address
from recording.delivery.sender import MAX_IN_FLIGHT, MAX_ROWS
from recording.spool.reader import Batch, Position
from recording.spool.records import encode_row

TARGET = Target(min_ratio=1.2)


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of one producer and of eight."""
    rows, rounds, starts = (32_000, 3, 1) if short else (100_000, 4, 4)
    figures = []
    for producers in (1, 8):
        pairs: list[tuple[float, float]] = []
        # The speed of a ledger varies by up to 15 % from one process start to another.
        for start in range(starts):
            pairs += _measure(place / f"{producers}-{start}", producers, rows, rounds)
        ours, baseline = zip(*pairs, strict=True)
        who = "one producer" if producers == 1 else f"{producers} producers together"
        figures.append(compare(f"(a) to a FULL commit, {who}", "rows/s", ours, baseline, TARGET))
    return figures


def _measure(place: Path, producers: int, rows: int, rounds: int) -> Iterator[tuple[float, float]]:
    """The rows per second of a ledger and of the baseline, round by round."""
    place.mkdir()
    sqlite = Baseline(place / "baseline.db")
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(place))
        workers = [stack.enter_context(Worker("bench.throughput", address=ledger.address)) for _ in range(producers)]
        for _ in range(rounds):
            # Texts are indexed later; wait, so that this does not slow the baseline down.
            wait_until_indexed(place / "audit.db")
            baseline = sqlite.insert_many([values_of(row) for row in make_rows(rows)])
            ask_all(workers, prepare=rows // producers)
            started = time.perf_counter()
            ask_all(workers, prepare=0)
            yield rows / (time.perf_counter() - started), baseline
    sqlite.close()


def ask_all(workers: list[Worker], *, prepare: int) -> None:
    """Has producers make as many rows each, or with 0 send what they made, at once; waits for all."""
    for worker in workers:
        worker.tell(prepare=prepare)
    for worker in workers:
        worker.hear()


async def _work(address: str) -> None:
    """A producer: makes batches, then sends them as the gateway's sender does."""
    link = Connection(Address(address))
    call, producer, batches, number = link.record(), str(uuid7()), list[Batch](), 1
    async for question in questions():
        if question["prepare"]:
            batches = batches_of(make_rows(question["prepare"]), number)
            number = batches[-1].last + 1
            answer(len(batches))
        else:
            answer(len(await send(call, producer, batches)))


def batches_of(rows: Iterable[audit_pb2.AuditRow], number: int = 1) -> list[Batch]:
    """The batches that a sender makes of rows, numbered from `number`."""
    payloads, batches = [encode_row(row) for row in rows], []
    for first in range(0, len(payloads), MAX_ROWS):
        part = payloads[first : first + MAX_ROWS]
        end = number + len(part)
        batches.append(Batch(number, Position(0, 0, end), list(range(number, end)), part))
        number = end
    return batches


async def send(call: RecordCall, producer: str, batches: list[Batch]) -> list[float]:
    """Sends batches with as many in flight as a sender has, and returns when each was acked, in seconds since 1970.

    Raises:
        RuntimeError: a batch was not stored as a whole.
    """
    window = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def write() -> None:
        for batch in batches:
            await window.acquire()
            await call.write(encode_request(range_of(producer, batch), batch))

    acked = []
    writing = asyncio.create_task(write())
    for batch in batches:
        response = await call.read()
        if not isinstance(response, audit_pb2.RecordResponse) or response.stored != len(batch.payloads):
            raise RuntimeError(f"not stored: {response}")
        window.release()
        acked.append(time.time())
    await writing
    return acked


if __name__ == "__main__":
    asyncio.run(_work(**options()))
