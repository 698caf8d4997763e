"""A service that the pages ask, over its RPCs and with this program's own credential."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recording.channel.details import info_of
from service_kit import client
from service_kit.client import current_access
from service_kit.health import DETAIL_KEY
from service_kit.unanswered import Peer, why_unanswered

NOT_SEALED = "NOT_SEALED"
SECONDS = 10.0
"""How long an answer may take."""


class NotAnswered(Exception):
    """A service did not do what a page asked for."""

    def __init__(self, service: str, code: grpc.StatusCode, details: str, reason: str = "") -> None:
        """service: with its article. details: its own sentence, or why there was none. reason: its ErrorReason."""
        super().__init__(f"{service}: {code.name}")
        self.service, self.code, self.details, self.reason = service, code, details, reason

    @property
    def is_passing(self) -> bool:
        """Whether the same question may be answered a little later."""
        return self.reason == NOT_SEALED or self.code in {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.ABORTED,
        }


class Remote:
    """The services at one address. Made within the event loop."""

    def __init__(self, name: str, peer: Peer, target: str, stubs: Sequence[type[Any]]) -> None:
        """name: what runs there, with its article. target: "host:port". stubs: of its gRPC services.

        Raises:
            Exit: a file of the access options cannot be used.
        """
        self.name, self.peer, self._named, self._kinds = name, peer, target, stubs
        self._access = current_access()
        self._connect(target)

    def _connect(self, target: str) -> None:
        self.target = target
        self._channel, _ = client.open_channel(target)
        self._stubs = [stub(self._channel) for stub in self._kinds]
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    async def _follow(self) -> None:
        """Connects to where the service is now, if it has moved: whoever asks again is answered."""
        if client.where_now is None:
            return
        now = await asyncio.to_thread(client.where_now, self._named)
        if now != self.target:
            left = self._channel
            self._connect(now)
            await left.close()

    async def ask(self, rpc: str, request: Message) -> Any:
        """The response of a unary RPC. Raises NotAnswered."""
        stub = next(stub for stub in self._stubs if hasattr(stub, rpc))
        try:
            # The token is read each time, since its file changes when it is renewed.
            return await getattr(stub, rpc)(request, timeout=SECONDS, metadata=tuple(self._access.metadata()))
        except grpc.aio.AioRpcError as error:
            raise await self._not_answered(error) from None

    async def health(self) -> tuple[bool, str]:
        """Whether it serves, and what it says beside; a service that does not answer does not serve."""
        call = self._health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        try:
            answer = await call
            detail = dict(await call.trailing_metadata() or ()).get(DETAIL_KEY, b"")
        except grpc.aio.AioRpcError as error:
            await self._follow()
            return False, f"it does not answer: {error.code().name}"
        text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else detail
        return answer.status == health_pb2.HealthCheckResponse.SERVING, text

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _not_answered(self, error: grpc.aio.AioRpcError) -> NotAnswered:
        code, details = error.code(), error.details() or ""
        why = await asyncio.to_thread(why_unanswered, self.target, self.peer, error)
        if code is grpc.StatusCode.UNAVAILABLE:
            await self._follow()
        return NotAnswered(self.name, code, why or details, info_of(error).reason)
