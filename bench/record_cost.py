"""(b) The time that recording a call takes in the agent's thread, against one in-process INSERT with the same promise.

The record of a call: open_call() with its arguments' digest, decide(), its intent into the spool, close_call(), its row
into the spool, as the gateway makes them. The arguments are four, again and again, as an agent repeats paths, patterns
and commands; those "of new texts" are never the same. Synced every 100 ms, both it and an INSERT at synchronous NORMAL
survive the death of the process; synced always, and an INSERT at FULL, that of the machine. The INSERT has a row that
is ready, without summary, redaction and digest, and no intent before it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from onrecord.client import Ledger
from uuid_utils import uuid7

from bench.figures import Figure, Target, compare_at
from bench.rows import Baseline, make_rows, values_of
from bench.services import start_ledger
from bench.workers import Worker, answer, options, questions
from gateway_svc.tools import kinds
from recording import redact
from recording.args_key import ArgsKey
from recording.calls import ALLOWED, Scope, ToolCall, ToolResult
from recording.delivery.connection import Target as Address
from recording.logger import AuditLogger
from recording.record import open_record
from recording.rows import close_call, decide, open_call
from recording.spool import Sync

_CALLS_A_ROUND = 300
_CALLS_AT_ONCE = 10
_PAUSE_SECONDS = 0.002
_PROMISES: dict[Sync, str] = {"interval": "NORMAL", "always": "FULL"}
_CLIENT = "client"
_NEW = "new"
_TARGETS: dict[tuple[str, int], Target] = {
    ("interval", 50): Target(max_ours=35),
    ("interval", 99): Target(max_ours=200),
    (_NEW, 50): Target(max_ours=35),
    (_NEW, 99): Target(max_ours=200),
}
_ARGUMENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("read", {"path": "docs/architecture.md", "offset": 0, "limit": 2000}),
    ("bash", {"command": "git log --oneline -20", "timeout_seconds": 60}),
    ("grep", {"pattern": "def test_", "path": "tests", "glob": "*.py"}),
    ("webfetch", {"url": "https://example.com/manual/", "max_characters": 20_000}),
)

_numbers = count()

Item = TypeVar("Item")


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures of both promises, with a running sender and ledger."""
    with start_ledger(place) as ledger, Worker("bench.record_cost", place=str(place), address=ledger.address) as worker:
        samples = worker.ask(rounds=6 if short else 40)
    named = {f"synced {sync}": (sync, synchronous) for sync, synchronous in _PROMISES.items()}
    return [
        compare_at(
            f"(b) a call's record, {name}, against an INSERT at {synchronous}",
            "µs",
            percent,
            samples[ours],
            samples[synchronous],
            _TARGETS.get((ours, percent)),
        )
        for name, (ours, synchronous) in {
            **named,
            "of new texts, synced interval": (_NEW, "NORMAL"),
            "by a Ledger": (_CLIENT, "NORMAL"),
        }.items()
        for percent in (50, 99)
    ]


async def _work(place: str, address: str) -> None:
    redact.show_fields(kinds.shown())
    records = {sync: open_record(Path(place) / sync, Address(address), sync=sync) for sync in _PROMISES}
    databases = {name: Baseline(Path(place) / f"{name}.db", name) for name in ("NORMAL", "FULL")}
    for record in records.values():
        record.start()
    client = Ledger(Path(place) / _CLIENT, address).open()
    async for question in questions():
        ours = {sync: (record, _calls) for sync, record in records.items()} | {_NEW: (records["interval"], _new_calls)}
        samples: dict[str, list[float]] = {name: [] for name in (*ours, *databases, _CLIENT)}
        for _ in range(question["rounds"]):
            for name, (record, calls) in ours.items():
                samples[name] += await _time(_recording(record.logger, record.args_key), calls(), record.logger.synced)
                while record.counters.acked < record.counters.accepted:  # noqa: ASYNC110 - nothing tells it
                    await asyncio.sleep(0.01)
            samples[_CLIENT] += await _time(_recording_with(client), _calls())
            await asyncio.to_thread(client.flush, 60)
            for name, database in databases.items():
                samples[name] += await _time(database.insert, [values_of(row) for row in make_rows(_CALLS_A_ROUND)])
        answer(samples)
    client.close()


def _calls(ending: Callable[[], str] = str) -> list[ToolCall]:
    """ending: what each text of a call's arguments ends in."""
    return [
        ToolCall(str(uuid7()), f"call_{number:024x}", name, json.dumps(_ended(arguments, ending())))
        for number, (name, arguments) in enumerate(_ARGUMENTS * (_CALLS_A_ROUND // len(_ARGUMENTS)))
    ]


def _new_calls() -> list[ToolCall]:
    return _calls(lambda: f"_{next(_numbers)}")


def _ended(arguments: dict[str, Any], ending: str) -> dict[str, Any]:
    return {name: value + ending if isinstance(value, str) else value for name, value in arguments.items()}


def _recording(logger: AuditLogger, key: ArgsKey) -> Callable[[ToolCall], None]:
    scope = Scope(str(uuid7()), "ollama", "qwen3:4b", str(uuid7()))
    result = ToolResult("", exit_code=0, result_bytes=4_000, duration_ms=12)

    def record(call: ToolCall) -> None:
        intent = open_call(call, scope, key=key)
        decide(intent, ALLOWED)
        logger.intend(intent)
        logger.record(close_call(intent, result))

    return record


def _recording_with(ledger: Ledger) -> Callable[[ToolCall], None]:
    arguments = dict(_ARGUMENTS)

    def record(call: ToolCall) -> None:
        with ledger.tool_call(call.name, arguments[call.name]) as made:
            made.result_bytes = 4_000

    return record


async def _nothing() -> None:
    """An INSERT that has returned is as safe as it gets."""


async def _time(
    act: Callable[[Item], None], items: Sequence[Item], synced: Callable[[], Awaitable[None]] = _nothing
) -> list[float]:
    """The microseconds of each call. The event loop runs between them, as it does between an agent's calls."""
    samples = []
    for number, item in enumerate(items, 1):
        started = time.perf_counter_ns()
        act(item)
        await synced()
        samples.append((time.perf_counter_ns() - started) / 1000)
        if number % _CALLS_AT_ONCE == 0:
            await asyncio.sleep(_PAUSE_SECONDS)
    return samples


if __name__ == "__main__":
    asyncio.run(_work(**options()))
