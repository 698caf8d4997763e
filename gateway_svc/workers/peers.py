"""The other workers of a gateway: a call goes to one of them as bytes, and its answer comes back as it is."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import grpc
from onrecord.gateway.v1 import control_pb2 as control

from gateway_svc.errors import ShuttingDown
from gateway_svc.servicer import CONTROL
from gateway_svc.workers.identity import identity
from gateway_svc.workers.worker import Worker
from recording.channel.details import has_details
from recording.channel.options import DIRECT

REACH_SECONDS = 10.0
"""How long a call waits for a worker that is being started again."""
STOP = "onrecord-stop-bin"
"""Metadata of StopAgents between workers: the stop that was made."""
_STOP_AGENTS, _RESUME = (f"/{CONTROL}/{name}" for name in ("StopAgents", "Resume"))


class Peer:
    """Another worker."""

    def __init__(self, worker: Worker, slot: int) -> None:
        """slot: which one it is."""
        self.slot = slot
        self._secret = worker.secret
        self._channel = grpc.aio.insecure_channel(
            f"unix:{worker.socket_of(slot)}",
            [
                *DIRECT,
                ("grpc.enable_retries", 0),  # the client decides on that
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )

    async def call(self, method: str, request: bytes, *more: tuple[str, str | bytes]) -> bytes:
        """The answer to a call with one, which waits until the worker is there. more: further metadata.

        Raises:
            grpc.aio.AioRpcError: what the worker ended it with.
            ShuttingDown: it is not there, or has just died.
        """
        ask: Any = self._channel.unary_unary(method)
        await self._reach()
        call = ask(request, metadata=(*identity(self._secret), *more))
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from None
        finally:
            call.cancel()
        return answer

    async def stream(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """The answers to a call with many. Closing the generator cancels the call.

        Raises:
            grpc.aio.AioRpcError, ShuttingDown: as call().
        """
        ask: Any = self._channel.unary_stream(method)
        await self._reach()
        call = ask(request, metadata=identity(self._secret))
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from None
        finally:
            call.cancel()

    async def _reach(self) -> None:
        try:
            async with asyncio.timeout(REACH_SECONDS):
                await self._channel.channel_ready()
        except TimeoutError:
            raise self._gone() from None

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    def _told(self, error: grpc.aio.AioRpcError) -> Exception:
        """What the worker said; what gRPC says of a connection that broke is no answer of a worker."""
        return error if has_details(error) else self._gone()

    def _gone(self) -> ShuttingDown:
        return ShuttingDown(f"worker {self.slot} of this gateway does not answer: it is being started again")


class Peers:
    """All other workers."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._peers = {slot: Peer(worker, slot) for slot in range(worker.workers) if slot != worker.slot}

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, slot: int) -> Peer | None:
        """The worker in a slot; None for this one."""
        return self._peers.get(slot)

    async def stop(self, request: control.StopAgentsRequest, stop: control.Stop) -> list[control.StopAgentsResponse]:
        """Has a stop hold in all other workers (gateway_svc.stopping.stops.Others)."""
        told, data = (STOP, stop.SerializeToString()), request.SerializeToString()
        answers = await asyncio.gather(*(peer.call(_STOP_AGENTS, data, told) for peer in self))
        return [control.StopAgentsResponse.FromString(answer) for answer in answers]

    async def resume(self, stop_id: str) -> None:
        """Lifts a stop in all other workers (gateway_svc.stopping.stops.Others)."""
        data = control.ResumeRequest(stop_id=stop_id).SerializeToString()
        await asyncio.gather(*(peer.call(_RESUME, data) for peer in self))

    async def aclose(self) -> None:
        """Closes the connections."""
        for peer in self:
            await peer.aclose()
