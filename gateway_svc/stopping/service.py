"""onrecord.gateway.v1.ControlService: stopping agents, and letting them go on."""

from collections.abc import Callable
from typing import Any

import grpc
from onrecord.gateway.v1 import control_pb2 as pb
from onrecord.gateway.v1 import control_pb2_grpc

from gateway_svc.stopping.stops import Stops
from service_kit.access.callers import current_caller

Context = grpc.aio.ServicerContext[Any, Any]


class ControlServicer(control_pb2_grpc.ControlServiceServicer):
    """The proto says what each RPC does and how it fails."""

    def __init__(self, stops: Stops, knows: Callable[[pb.StopScope], bool] = lambda scope: True) -> None:
        """knows: whether the gateway has what a scope names."""
        self._stops, self._knows = stops, knows

    async def StopAgents(self, request: pb.StopAgentsRequest, context: Context) -> pb.StopAgentsResponse:  # noqa: N802 - the names of RPCs are the proto's
        """Stops agents."""
        answer = await self._stops.stop(request, _principal())
        answer.is_unknown = not self._knows(request.scope)
        return answer

    async def Resume(self, request: pb.ResumeRequest, context: Context) -> pb.ResumeResponse:  # noqa: N802
        """Lifts a stop."""
        return await self._stops.resume(request, _principal())

    async def ListStops(self, request: pb.ListStopsRequest, context: Context) -> pb.ListStopsResponse:  # noqa: N802
        """Lists the stops in force."""
        self._stops.check_known()
        return pb.ListStopsResponse(stops=self._stops.by_scope())


def _principal() -> str:
    """Who calls; empty where callers have no names."""
    caller = current_caller()
    return caller.name if caller else ""
