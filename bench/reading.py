"""Ingest beside readers and a tail, against ingest alone."""

import asyncio
import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc

from bench.figures import Figure, Target, compare
from bench.services import start_ledger
from bench.workers import Worker, answer, options, questions
from recording.channel.options import CLIENT_OPTIONS

READERS = 8
PACES = {"ask ten times a second each": 0.1, "ask again at once": 0.0}
"""Seconds between an answer and the reader's next question: people, impatient dashboards, and programs."""

TARGET = Target(min_ratio=0.7)

_DAY_MS = 86_400_000


def measure(folder: Path, *, short: bool) -> list[Figure]:
    """Rows per second with and without readers and a tail. The ledger in folder grows."""
    rows, rounds = (20_000, 3) if short else (100_000, 8)
    alone = list[float]()
    ours: dict[str, list[float]] = {pace: [] for pace in PACES}
    answers: dict[str, list[list[int]]] = {pace: [] for pace in PACES}
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(folder, listen_seconds=600))
        producer = stack.enter_context(Worker("bench.throughput", address=ledger.address))
        readers = stack.enter_context(Worker("bench.reading", address=ledger.address))
        for _ in range(rounds):
            alone.append(_ingest(producer, rows))
            for pace, rest_seconds in PACES.items():
                readers.ask(go=True, rest_seconds=rest_seconds)
                ours[pace].append(_ingest(producer, rows))
                answers[pace].append(readers.ask(go=False))
    figures = []
    for pace in PACES:
        name = f"rows a second while {READERS} readers {pace} and a tail follows, against alone"
        asked, followed, missed = (sum(column) for column in zip(*answers[pace], strict=True))
        seconds = sum(rows / rate for rate in ours[pace])
        figures += [
            compare(name, "rows/s", ours[pace], alone, TARGET),
            Figure("... questions answered meanwhile", "a second", asked / seconds),
            Figure("... rows that the tail was sent meanwhile", "rows/s", followed / seconds),
            Figure("... rows that the tail was told it missed", "rows/s", missed / seconds),
        ]
    return figures


def _ingest(producer: Worker, rows: int) -> float:
    producer.ask(prepare=rows)
    started = time.perf_counter()
    producer.ask(prepare=0)
    return rows / (time.perf_counter() - started)


class _Readers:
    """Eight readers and a tail of one ledger."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self._tasks: list[asyncio.Task[None]] = []
        self.counts = [0, 0, 0]
        """Answers, rows of the tail, rows that it missed."""

    async def start(self, rest_seconds: float) -> None:
        self.counts = [0, 0, 0]
        stream = self._stub.TailToolCalls(questions_pb2.TailToolCallsRequest(skip_when_behind=True))
        self._tasks = [asyncio.create_task(self._read(number, rest_seconds)) for number in range(READERS)]
        self._tasks.append(asyncio.create_task(self._follow(stream)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, number: int, rest_seconds: float) -> None:
        chance = random.Random(number)
        listing, usage = questions_pb2.ListToolCallsRequest, questions_pb2.SummarizeUsageRequest
        calls, sessions = questions_pb2.ToolCallFilter, questions_pb2.SessionFilter(engine="openai")
        while True:
            since_ms = time.time_ns() // 1_000_000 - 30 * _DAY_MS
            ask, request = chance.choice(
                [
                    (self._stub.ListToolCalls, listing(filter=calls(tool_name="bash"))),
                    (self._stub.ListToolCalls, listing(filter=calls(has_error=True, created_from_ms=since_ms))),
                    (
                        self._stub.ListToolCalls,
                        listing(filter=calls(labels={"user": f"user-{chance.randrange(2000)}"})),
                    ),
                    (self._stub.ListSessionRecords, questions_pb2.ListSessionRecordsRequest(filter=sessions)),
                    (
                        self._stub.SummarizeUsage,
                        usage(group_by=["engine", "tool"], filter=calls(created_from_ms=since_ms)),
                    ),
                ]
            )
            await ask(request)
            self.counts[0] += 1
            await asyncio.sleep(rest_seconds)

    async def _follow(self, stream: Any) -> None:
        async for response in stream:
            self.counts[1] += len(response.tool_calls)
            if response.HasField("skipped"):
                self.counts[2] += response.skipped.last - response.skipped.first + 1


async def _work(address: str) -> None:
    async with grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        readers = _Readers(questions_pb2_grpc.QuestionServiceStub(channel))
        async for question in questions():
            await (readers.start(question["rest_seconds"]) if question["go"] else readers.stop())
            answer(readers.counts)


if __name__ == "__main__":
    asyncio.run(_work(**options()))
