"""An honest caller beside a hostile peer: a process of its own, which calls without waiting for what it asked before.

Run as `python -m tests.hostile.honest SERVICE ADDRESS`; it ends with its input, and prints how each call went.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from demo.processes import REPOSITORY, Service
from tests.hostile.held import WATCHED

SECONDS = 60
"""How long a call may take at most."""
A_SECOND = int(os.environ.get("HONEST_CALLS_A_SECOND", "10"))
"""Its calls. `make bench-hostile` sets more: a percentile needs them."""


@dataclass
class Calls:
    """How the calls went, once they have ended."""

    times: list[tuple[float, float]] = field(default_factory=list)
    """When each began and ended, by the monotonic clock that all processes share."""
    failures: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Of the durations, in milliseconds."""
        durations = sorted((ended - began) * 1000 for began, ended in self.times)
        return durations[min(len(durations) - 1, int(len(durations) * share))]

    def during(self, began: float, ended: float) -> "Calls":
        """Those that ran at some time between the two."""
        return Calls([one for one in self.times if one[0] <= ended and one[1] >= began])


ALL: list[tuple[str, Calls]] = []
"""Those of this process by their tests: `make bench-hostile` prints them."""


@contextmanager
def honest_caller(service: Service, module: str) -> Iterator[Calls]:
    """Calls the service while the body runs. All its calls must have gone well."""
    command = [sys.executable, "-m", "tests.hostile.honest", module, service.address]
    calls = Calls()
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield calls
        finally:
            process.stdin.close()
            told = json.loads(process.stdout.read() or "{}")
            calls.__dict__.update(told)
            name = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].removesuffix(" (call)")
            ALL.append((name, calls))
            ALL.extend((f"  {case}", calls.during(*times)) for case, *times in WATCHED[service.pid].cases)
    assert not calls.failures, calls.failures
    assert calls.times


@asynccontextmanager
async def calling(
    call: Callable[[], Coroutine[None, None, None]], at_most: int | None = None, a_second: int = 10
) -> AsyncIterator[None]:
    """Makes calls while the body runs, and waits until each has ended.

    at_most: of them at once. Without it, what a machine cannot take in time piles up.
    """

    async def keep_calling() -> None:
        running = set[asyncio.Task[None]]()
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                if at_most is None or len(running) < at_most:
                    running.add(task := group.create_task(call()))
                    task.add_done_callback(running.discard)
                await asyncio.sleep(1 / a_second)

    over = asyncio.Event()
    task = asyncio.create_task(keep_calling())
    try:
        yield
    finally:
        over.set()
        await task


async def _call(module: str, channel: grpc.aio.Channel, number: int) -> None:
    if module == "gateway_svc":
        gateway: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
        await gateway.ListEngines(gateway_pb2.ListEnginesRequest(), timeout=SECONDS)
        return
    audit: Any = audit_pb2_grpc.AuditServiceStub(channel)
    row = audit_pb2.AuditRow(
        id=f"honest-{number}",
        tool_name="read",
        outcome=common_pb2.OUTCOME_SUCCEEDED,
        created_at_ms=time.time_ns() // 1_000_000,
    )
    ack = await audit.RecordBatch(audit_pb2.RecordRequest(row_version=1, tool_calls=[row]), timeout=SECONDS)
    assert not ack.rejections, ack


async def _keep_calling(module: str, address: str) -> Calls:
    calls, ended = Calls(), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)

    async def call(number: int) -> None:
        began = time.monotonic()
        try:
            await _call(module, channel, number)
            calls.times.append((began, time.monotonic()))
        except grpc.aio.AioRpcError as error:
            calls.failures.append(f"{error.code().name} {error.details()}")

    numbers = count()
    async with grpc.aio.insecure_channel(address) as channel:
        await call(next(numbers))
        calls.times.clear()
        print("ready", flush=True)
        async with calling(lambda: call(next(numbers)), a_second=A_SECOND):
            await ended.wait()
    return calls


if __name__ == "__main__":
    print(json.dumps(vars(asyncio.run(_keep_calling(*sys.argv[1:])))))
