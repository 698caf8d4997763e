"""An honest caller beside a hostile peer: ten calls a second, from a process of its own.

Run as `python -m tests.hostile.honest SERVICE ADDRESS`; it ends with its input, and prints how each call went.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from demo.processes import REPOSITORY, Service

SECONDS = 60
"""How long a call may take at most."""


@dataclass
class Calls:
    """How the calls went, once they have ended."""

    milliseconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Of the durations."""
        return sorted(self.milliseconds)[min(len(self.milliseconds) - 1, int(len(self.milliseconds) * share))]


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
            ALL.append((os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].removesuffix(" (call)"), calls))
    assert not calls.failures, calls.failures
    assert calls.milliseconds


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
        began = time.perf_counter()
        try:
            await _call(module, channel, number)
            calls.milliseconds.append((time.perf_counter() - began) * 1000)
        except grpc.aio.AioRpcError as error:
            calls.failures.append(f"{error.code().name} {error.details()}")

    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
        await call(0)
        calls.milliseconds.clear()
        print("ready", flush=True)
        number = 0
        while not ended.is_set():
            group.create_task(call(number := number + 1))
            await asyncio.sleep(0.1)
    return calls


if __name__ == "__main__":
    print(json.dumps(vars(asyncio.run(_keep_calling(*sys.argv[1:])))))
