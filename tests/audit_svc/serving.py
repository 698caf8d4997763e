"""A ledger's services behind a real port, in the test's own process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from audit_svc.ledger.protocol import Ledger
from audit_svc.seal.reader import SealReader
from audit_svc.services import LedgerServices, error_interceptor
from service_kit.server import build_server
from tests.support.grpc_server import started


@asynccontextmanager
async def serving(
    store: Ledger, *interceptors: grpc.aio.ServerInterceptor, reader: SealReader | None = None
) -> AsyncIterator[tuple[str, LedgerServices]]:
    """Serves a store, which stays open, until the body ends; yields the address, and what serves there."""
    server, services = build_server([error_interceptor(), *interceptors]), LedgerServices(store, reader)
    services.add_to(server)
    async with started(server) as address:
        try:
            yield address, services
        finally:
            services.begin_drain()
    await services.close()
