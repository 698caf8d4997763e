"""A gateway and a ledger, used in one event loop after another."""

import asyncio
from pathlib import Path

import grpc
from onrecord.client import AsyncGateway, AsyncLedger
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc


class Sessions(gateway_pb2_grpc.GatewayServiceServicer):
    """Has none."""

    async def ListSessions(self, request, context):
        """As the service's."""
        return gateway_pb2.ListSessionsResponse()


async def serve() -> tuple[grpc.aio.Server, int]:
    """A gateway on a port."""
    server = grpc.aio.server()
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(Sessions(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def use_in_two_loops(state_dir: Path) -> None:
    """Each asyncio.run() has a loop of its own."""
    ledger = AsyncLedger(state_dir)
    gateway = AsyncGateway("127.0.0.1:1")

    async def use() -> None:
        server, port = await serve()
        gateway._channels._target = f"127.0.0.1:{port}"
        await gateway.stub.ListSessions(gateway_pb2.ListSessionsRequest(), timeout=30)
        async with ledger:
            with ledger.tool_call("lookup"):
                pass
        await gateway.close()
        await server.stop(None)

    for _ in range(2):
        asyncio.run(use())
