"""Many clients that list a gateway's sessions at once: each listing opens a thousand files."""

import asyncio
from typing import Any

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from tests.hostile.conftest import Start
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.honest import honest_caller

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

SESSIONS = 1000
LISTINGS = 40


async def test_40_listings_of_1000_sessions_at_once_are_all_answered_and_hold_nobody_up(start: Start):
    service = await asyncio.to_thread(start, "gateway_svc")
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
        settings = pb.SessionSettings(labels={f"key{number}": "x" * 200 for number in range(10)})
        for _ in range(SESSIONS // 100):
            await asyncio.gather(*(stub.CreateSession(pb.CreateSessionRequest(settings=settings)) for _ in range(100)))
        before = forget_peak(service)
        with honest_caller(service, "gateway_svc"):
            listings = [stub.ListSessions(pb.ListSessionsRequest(page_size=1000), timeout=240) for _ in range(LISTINGS)]
            sizes = {len((await listing).sessions) for listing in listings}
        assert sizes == {1000}
        assert memory(service, "VmHWM") - before < 256 * MIB
