"""A worker's part in its gateway: what it does for the others, and what it tells them of itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from onrecord.gateway.v1 import approvals_pb2_grpc, control_pb2_grpc, gateway_pb2_grpc
from onrecord.gateway.v1 import control_pb2 as control
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.gateway import Gateway
from gateway_svc.servicer import owner_of_call
from gateway_svc.stopping.service import ControlServicer
from gateway_svc.workers.identity import IdentityInterceptor
from gateway_svc.workers.peers import STOP
from gateway_svc.workers.routing import KNOWS_REQUEST
from gateway_svc.workers.table import Field
from gateway_svc.workers.worker import Worker
from service_kit.errors import ErrorInterceptor
from service_kit.server import build_server

STOP_SECONDS = 2.0
"""How long the others may read the ends of what ran here."""

Context = grpc.aio.ServicerContext[Any, Any]


class WorkersControl(ControlServicer):
    """What another worker has stopped, and put on the record and on disk, or has let go on."""

    async def StopAgents(self, request: control.StopAgentsRequest, context: Context) -> control.StopAgentsResponse:  # noqa: N802 - the names of RPCs are the proto's
        """Has the stop hold here that the metadata tell."""
        data: Any = dict(context.invocation_metadata() or ())[STOP]
        return await self._stops.adopt(request, control.Stop.FromString(data))

    async def Resume(self, request: control.ResumeRequest, context: Context) -> control.ResumeResponse:  # noqa: N802
        """Lifts the stop here."""
        self._stops.forget(request.stop_id)
        return control.ResumeResponse()


@asynccontextmanager
async def serving_workers(gateway: Gateway, worker: Worker, errors: ErrorInterceptor) -> AsyncIterator[None]:
    """Answers the calls that other workers pass on, on a socket of this one's own."""
    server = build_server(
        [errors, IdentityInterceptor(worker.secret)],
        [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(gateway.servicer, server)
    approvals_pb2_grpc.add_ApprovalServiceServicer_to_server(gateway.approvals, server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(WorkersControl(gateway.stops), server)

    async def knows(request: pb.RunTurnRequest, context: Context) -> bytes:
        return b"1" if gateway.turns.knows(request, owner_of_call()) else b""

    _, service, method = KNOWS_REQUEST.split("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(knows, request_deserializer=pb.RunTurnRequest.FromString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    path = worker.socket_of(worker.slot)
    path.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    worker.table.set(Field.STARTED, 1)
    try:
        yield
    finally:
        await server.stop(STOP_SECONDS)


class WorkerHealth:
    """A gateway's health as a worker tells it: it serves while one of its workers does."""

    def __init__(self, gateway: Gateway, worker: Worker) -> None:
        self._gateway = gateway
        self._table = worker.table
        self._others = [slot for slot in range(worker.workers) if slot != worker.slot]
        self._own = ""

    async def check(self) -> str:
        """Why no worker can run turns; empty when one can."""
        self._own = await self._gateway.health()
        self._table.set(Field.SERVES, not self._own)
        return "" if any(self._table.get(slot, Field.SERVES) for slot in self._others) else self._own

    async def detail(self) -> str:
        """What an operator should look at, also where this worker alone cannot run turns."""
        own = self._own and f"one worker cannot run turns: {self._own}"
        return "; ".join(filter(None, [own, await self._gateway.detail()]))

    def begin_drain(self) -> None:
        """Begins no turn."""
        self._table.set(Field.SERVES, 0)
        self._gateway.begin_drain()
