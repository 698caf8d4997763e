"""A gateway and a ledger, used in one event loop after another."""

import asyncio
from pathlib import Path

import grpc
from onrecord.client import AsyncGateway, AsyncLedger
from onrecord.gateway.v1 import gateway_pb2 as pb


async def list_none(_request: pb.ListSessionsRequest, _context: object) -> pb.ListSessionsResponse:
    """ListSessions of a gateway that has none."""
    return pb.ListSessionsResponse()


async def serve(port: int) -> tuple[grpc.aio.Server, int]:
    """A gateway on a port; 0 for a free one."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    types = (pb.ListSessionsRequest.FromString, pb.ListSessionsResponse.SerializeToString)
    handlers = {"ListSessions": grpc.unary_unary_rpc_method_handler(list_none, *types)}
    name = pb.DESCRIPTOR.services_by_name["GatewayService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound


def use_in_two_loops(state_dir: Path) -> None:
    """Each asyncio.run() has a loop of its own."""
    ledger = AsyncLedger(state_dir)
    gateway: AsyncGateway | None = None
    port = 0

    async def use() -> None:
        nonlocal gateway, port
        server, port = await serve(port)
        gateway = gateway or AsyncGateway(f"127.0.0.1:{port}")
        await gateway.stub.ListSessions(pb.ListSessionsRequest(), timeout=30, wait_for_ready=True)
        async with ledger:
            with ledger.tool_call("lookup"):
                pass
        await server.stop(None)

    for _ in range(2):
        asyncio.run(use())
