"""A process that records as a gateway does, until it is told to drain or is killed.

What it did is in a journal that outlives it: `i ID` before the row's intent, and after record() has returned `a ID`
when the row was taken, `d ID` when it was not. A kill between two lines leaves no id there that record() had not taken.
"""

import asyncio
import logging
import os
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.channel.token import token_metadata
from recording.delivery.connection import Target
from recording.logger import Row
from recording.record import Record, open_record

GRACE_SECONDS = 300.0
"""To send what is left: far more than it takes, since a machine that does much else is slow."""
PRODUCER_NAME = "faults"

_TICK_SECONDS = 0.004
_COST_EVERY = 8


@dataclass(frozen=True)
class Orders:
    """What a producer is to do."""

    state_dir: Path
    target: str
    journal: Path
    prefix: str
    """Its ids begin with it; no two producers of a round share one."""
    rows_per_second: int = 4000
    """0: it only sends what others left."""
    padding: int = 0
    """Characters that make each row larger."""
    max_bytes: int = 2**30
    clock_backwards: bool = False
    hogs_descriptors: bool = False
    """Has no descriptor left for half of the time."""
    ack_seconds: float = 0.5
    """How long an ack may take before the connection is dead."""
    token: str = ""
    """What it shows the audit service, as the caller PRODUCER_NAME; empty where that asks for nothing."""


@dataclass(frozen=True)
class Ended:
    """What a producer says when it has drained."""

    drained: bool
    counters: dict[str, int]


def run(orders: Orders, control: Connection) -> None:
    """The process. Anything that comes through control means: drain, answer with Ended, end."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if orders.clock_backwards:
        _turn_clock_back()
    asyncio.run(_record(orders, control))


async def _record(orders: Orders, control: Connection) -> None:
    target = Target(orders.target)
    if orders.token:
        shown = token_metadata(orders.token)
        target = Target(orders.target, metadata=lambda: shown, producer_name=PRODUCER_NAME)
    record = open_record(
        orders.state_dir, target, max_bytes=orders.max_bytes, sync_interval_ms=20, ack_seconds=orders.ack_seconds
    )
    record.start()
    await asyncio.sleep(0)  # lets the adoption begin, which drain() then waits for
    journal = os.open(orders.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    calls = _calls(orders)
    control.send("records")
    hog = Hog() if orders.hogs_descriptors else None
    last = time.monotonic()
    while not control.poll():
        if hog is not None:
            hog.turn()
        due, last = orders.rows_per_second * (time.monotonic() - last), time.monotonic()
        for _ in range(round(due)):
            _run_call(record, next(calls), journal)
        await asyncio.sleep(_TICK_SECONDS)
    if hog is not None:
        hog.let_go()
    began = time.monotonic()
    # One that ends with its grace alone was not woken when there was nothing left.
    drained = await record.drain(GRACE_SECONDS) and time.monotonic() - began < GRACE_SECONDS
    await record.aclose()
    control.send(Ended(drained, asdict(record.counters)))


class Hog:
    """Takes all descriptors for a tenth of a second, and lets go of them for another."""

    def __init__(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        self._taken: list[int] = []
        self._turn_at = 0.0

    def turn(self) -> None:
        """Does what it is time for."""
        if time.monotonic() < self._turn_at:
            return
        self._turn_at = time.monotonic() + 0.1
        if self._taken:
            self.let_go()
            return
        with suppress(OSError):
            while True:
                self._taken.append(os.open(os.devnull, os.O_RDONLY))

    def let_go(self) -> None:
        """Closes all."""
        while self._taken:
            os.close(self._taken.pop())


def _run_call(record: Record, row: Row, journal: int) -> None:
    os.write(journal, f"i {row.id}\n".encode())
    if isinstance(row, audit_pb2.AuditRow):
        intent = audit_pb2.AuditRow()
        intent.CopyFrom(row)
        intent.ClearField("outcome")
        record.logger.intend(intent)
    accepted = record.counters.accepted
    record.logger.record(row)
    taken = record.counters.accepted > accepted
    os.write(journal, f"{'a' if taken else 'd'} {row.id}\n".encode())


def _calls(orders: Orders) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        row_id, now_ms = f"{orders.prefix}-{number}", time.time_ns() // 1_000_000
        if number % _COST_EVERY == 0:
            yield audit_pb2.CostRow(id=row_id, session_id="s", engine="faults", model="m", created_at_ms=now_ms)
        else:
            yield audit_pb2.AuditRow(
                id=row_id,
                provider_call_id=row_id,
                session_id="s",
                engine="faults",
                tool_name="bash",
                args_summary="x" * orders.padding,
                outcome=common_pb2.OUTCOME_SUCCEEDED,
                created_at_ms=now_ms,
            )


def _turn_clock_back() -> None:
    # An hour back for each tenth of a second, which is more than any clock does.
    began_ns, began = time.time_ns(), time.monotonic()
    time.time_ns = lambda: began_ns - int((time.monotonic() - began) * 10 * 3600e9)
    time.time = lambda: time.time_ns() / 1e9
