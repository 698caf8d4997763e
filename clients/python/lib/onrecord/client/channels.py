"""Channels to a gateway, made when they are first used."""

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc
from onrecord.client.access import Access
from onrecord.gateway.v1 import approvals_pb2_grpc, gateway_pb2_grpc

from recording.channel.options import CLIENT_OPTIONS

if TYPE_CHECKING:
    from grpc.aio import Channel as AsyncChannel

S = TypeVar("S")
A = TypeVar("A")


class Stubs(Generic[S, A]):
    """The stubs of one channel."""

    def __init__(self, gateway: S, approvals: A) -> None:
        self.gateway = gateway
        self.approvals = approvals


class AsyncChannels:
    """A channel for each event loop: gRPC's belong to the loop in which they were made."""

    def __init__(self, target: str, access: Access) -> None:
        self._target = target
        self._access = access
        self._of: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop,
            tuple[
                AsyncChannel,
                Stubs[gateway_pb2_grpc.GatewayServiceAsyncStub, approvals_pb2_grpc.ApprovalServiceAsyncStub],
            ],
        ] = weakref.WeakKeyDictionary()

    def stubs(
        self,
    ) -> "Stubs[gateway_pb2_grpc.GatewayServiceAsyncStub, approvals_pb2_grpc.ApprovalServiceAsyncStub]":
        """The stubs of the running loop's channel.

        Raises:
            RuntimeError: no loop runs.
            WrongFile: a file of the credentials cannot be used.
        """
        loop = asyncio.get_running_loop()
        if (found := self._of.get(loop)) is None:
            for ended in [other for other in self._of if other.is_closed()]:
                del self._of[ended]
            credentials = self._access.credentials()
            channel = (
                grpc.aio.insecure_channel(self._target, options=CLIENT_OPTIONS)
                if credentials is None
                else grpc.aio.secure_channel(self._target, credentials, options=CLIENT_OPTIONS)
            )
            gateway: gateway_pb2_grpc.GatewayServiceAsyncStub = gateway_pb2_grpc.GatewayServiceStub(channel)
            approvals: approvals_pb2_grpc.ApprovalServiceAsyncStub = approvals_pb2_grpc.ApprovalServiceStub(channel)
            found = self._of[loop] = (channel, Stubs(gateway, approvals))
        return found[1]

    async def close(self) -> None:
        """Closes the running loop's channel, which cancels what runs on it."""
        if (found := self._of.pop(asyncio.get_running_loop(), None)) is not None:
            await found[0].close()


class Channels:
    """The one channel of a process."""

    def __init__(self, target: str, access: Access) -> None:
        self._target = target
        self._access = access
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: Stubs[gateway_pb2_grpc.GatewayServiceStub, approvals_pb2_grpc.ApprovalServiceStub] | None = None

    def stubs(self) -> "Stubs[gateway_pb2_grpc.GatewayServiceStub, approvals_pb2_grpc.ApprovalServiceStub]":
        """The stubs of the channel.

        Raises:
            WrongFile: a file of the credentials cannot be used.
        """
        with self._lock:
            if self._stubs is None:
                credentials = self._access.credentials()
                self._channel = (
                    grpc.insecure_channel(self._target, options=CLIENT_OPTIONS)
                    if credentials is None
                    else grpc.secure_channel(self._target, credentials, options=CLIENT_OPTIONS)
                )
                self._stubs = Stubs(
                    gateway_pb2_grpc.GatewayServiceStub(self._channel),
                    approvals_pb2_grpc.ApprovalServiceStub(self._channel),
                )
            return self._stubs

    def close(self) -> None:
        """Closes the channel, which cancels what runs on it."""
        with self._lock:
            channel, self._channel, self._stubs = self._channel, None, None
        if channel is not None:
            channel.close()
