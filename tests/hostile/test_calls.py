"""More calls at once than a service runs: each is answered or refused by a status, and all are counted."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from demo.processes import Service
from tests.hostile.conftest import Start
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.honest import honest_caller
from tests.support.scrapes import scrape

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

CALLS = 2000


async def at_once(address: str, call: Callable[[grpc.aio.Channel], Awaitable[object]]) -> Counter[str]:
    """The statuses of CALLS calls that begin together on a few connections."""

    async def one(channel: grpc.aio.Channel) -> str:
        try:
            await call(channel)
        except grpc.aio.AioRpcError as error:
            status, retry = rpc_status.from_call(error), error_details_pb2.RetryInfo()  # type: ignore[arg-type] # aio's has it too
            told = status is not None and any(detail.Unpack(retry) for detail in status.details)
            return f"{error.code().name}{' with RetryInfo' if told else ''}"
        return "OK"

    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(4)]
    try:
        return Counter(await asyncio.gather(*(one(channels[number % 4]) for number in range(CALLS))))
    finally:
        for channel in channels:
            await channel.close()


async def list_calls(channel: grpc.aio.Channel) -> None:
    stub: Any = questions_pb2_grpc.QuestionServiceStub(channel)
    await stub.ListToolCalls(questions_pb2.ListToolCallsRequest(), timeout=120)


async def list_sessions(channel: grpc.aio.Channel) -> None:
    stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
    await stub.ListSessions(gateway_pb2.ListSessionsRequest(page_size=1), timeout=120)


async def run_nothing(channel: grpc.aio.Channel) -> None:
    stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
    await stub.RunTurn(gateway_pb2.RunTurnRequest(), timeout=120).read()


CASES = {
    "listings of the ledger": ("audit_svc", list_calls, "ListToolCalls", "OK"),
    "listings of the gateway": ("gateway_svc", list_sessions, "ListSessions", "OK"),
    "turns": ("gateway_svc", run_nothing, "RunTurn", "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize(("case", "at_most"), [*((case, None) for case in CASES), ("turns", 100)])
async def test_of_2000_calls_at_once_none_is_lost_in_silence(start: Start, case: str, at_most: int | None):
    """Each is answered, or told when to come again; the metrics know of all."""
    module, call, method, answered = CASES[case]
    prefix = "AUDIT" if module == "audit_svc" else "GATEWAY"
    env = {f"{prefix}_METRICS_LISTEN": "127.0.0.1:0", **({f"{prefix}_MAX_CALLS": str(at_most)} if at_most else {})}
    service = await asyncio.to_thread(start, module, **env)
    before = forget_peak(service)
    with nullcontext() if at_most else honest_caller(service, module):
        codes = await at_once(service.address, call)
    assert codes[answered] + codes["RESOURCE_EXHAUSTED with RetryInfo"] == CALLS, codes
    assert codes[answered] >= (at_most or CALLS), codes
    assert memory(service, "VmHWM") - before < 256 * MIB
    assert await asyncio.to_thread(counted, service, method) == CALLS


def counted(service: Service, method: str) -> float:
    """How many calls of a method the metrics have, whatever their status: a call is counted when it is told."""
    found = scrape(service)
    rpcs = found.families["onrecord_rpcs"].samples
    return sum(sample.value for sample in rpcs if sample.labels["method"].endswith(f"/{method}"))
