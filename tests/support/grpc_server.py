"""A gRPC server in the test's own process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from service_kit.server import bind


@asynccontextmanager
async def started(
    server: grpc.aio.Server, listen: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """Serves until the body ends; yields the address."""
    address = bind(server, listen, credentials)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)
