"""A client of the gateway: runs turns, and decides on tool calls of any turn."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import grpc
from onrecord.client.access import Access
from onrecord.client.aio.turn import AsyncDecide, AsyncTurn
from onrecord.client.decisions import Decision, answer_request
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from recording.channel.options import CLIENT_OPTIONS

DEFAULT_TARGET = "127.0.0.1:50051"


class AsyncGateway:
    """A connection to a gateway. `stub` has the RPCs that have no method here."""

    def __init__(self, target: str = DEFAULT_TARGET, access: Access = Access()) -> None:  # noqa: B008 - it is frozen
        """`target` is host:port.

        Raises:
            ValueError, WrongFile: `access` cannot be used.
        """
        self._access = access
        credentials = access.credentials()
        self._channel = (
            grpc.aio.insecure_channel(target, options=CLIENT_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=CLIENT_OPTIONS)
        )
        self.stub: gateway_pb2_grpc.GatewayServiceAsyncStub = gateway_pb2_grpc.GatewayServiceStub(self._channel)

    def run(
        self,
        text: str,
        *,
        session_id: str = "",
        engine: str = "",
        model: str = "",
        system_prompt: str = "",
        labels: Mapping[str, str] | None = None,
        max_steps: int = 0,
        max_cost_micros: int = 0,
        decide: AsyncDecide | None = None,
    ) -> AsyncTurn:
        """Starts a turn. The parameters are the fields of RunTurnRequest, which the proto documents.

        `decide` decides on tool calls that ask. Without it they wait for answer(), until the gateway's time limit.
        """
        request = pb.RunTurnRequest(
            input=text,
            session_id=session_id,
            engine=engine,
            model=model,
            system_prompt=system_prompt,
            labels=labels,
            max_steps=max_steps,
            max_cost_micros=max_cost_micros,
        )
        return self.run_request(request, decide=decide)

    def run_request(self, request: pb.RunTurnRequest, *, decide: AsyncDecide | None = None) -> AsyncTurn:
        """Starts a turn with a request of your own."""
        metadata = self._access.metadata()
        return AsyncTurn(self.stub, self.stub.RunTurn(request, metadata=metadata), metadata, decide)

    async def answer(self, call_id: str, decision: Decision | bool) -> None:
        """Decides on a tool call that asks.

        Raises:
            grpc.RpcError: no such call is waiting.
        """
        await self.stub.AnswerToolCall(answer_request(call_id, decision), metadata=self._access.metadata())

    async def close(self) -> None:
        """Closes the connection, which cancels running turns."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
