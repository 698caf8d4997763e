"""Clients that begin turns of a model that writes without end, and read nothing of them."""

import asyncio
from typing import Any

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from tests.hostile.conftest import Start
from tests.hostile.eager import EagerModel
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.honest import honest_caller

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

READERS = 100
MOST = READERS * 2 * MIB + 64 * MIB
"""The most memory that they may take together."""
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.lookahead_bytes", 16), ("grpc.http2.bdp_probe", 0)]


@pytest.mark.growth(MOST + 64 * MIB)  # they all end at once, which takes some more
async def test_a_hundred_clients_that_do_not_read_hold_little_each(start: Start):
    eager = EagerModel()
    async with eager:
        service = await asyncio.to_thread(start, "gateway_svc", GATEWAY_OLLAMA_URL=eager.url)
        before = forget_peak(service)
        with honest_caller(service, "gateway_svc"):
            async with grpc.aio.insecure_channel(service.address, OPTIONS) as channel:
                stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
                calls = [stub.RunTurn(pb.RunTurnRequest(input="go")) for _ in range(READERS)]
                first = await asyncio.gather(*(call.read() for call in calls))
                assert all(event.HasField("turn_accepted") for event in first)
                await eager.stands_still()
                peak = memory(service, "VmHWM") - before
        assert peak < MOST
