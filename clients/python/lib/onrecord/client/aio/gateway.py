"""A client of the gateway: runs turns, and decides on tool calls of any turn."""

from types import TracebackType
from typing import Self
from uuid import uuid4

from onrecord.client.access import Access
from onrecord.client.aio.turn import AsyncDecide, AsyncTurn
from onrecord.client.channels import AsyncChannels
from onrecord.client.decisions import Decision, answer_request
from onrecord.gateway.v1 import approvals_pb2, approvals_pb2_grpc, gateway_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

DEFAULT_TARGET = "127.0.0.1:50051"


class AsyncGateway:
    """A connection to a gateway, made when it is first used, for each event loop that uses it."""

    def __init__(self, target: str = DEFAULT_TARGET, access: Access = Access()) -> None:  # noqa: B008 - it is frozen
        """`target` is host:port.

        Raises:
            ValueError, WrongFile: `access` cannot be used.
        """
        access.credentials()
        self._access = access
        self._channels = AsyncChannels(target, access)

    @property
    def stub(self) -> "gateway_pb2_grpc.GatewayServiceAsyncStub":
        """The RPCs of GatewayService, for those that have no method here."""
        return self._channels.stubs().gateway

    @property
    def approvals(self) -> "approvals_pb2_grpc.ApprovalServiceAsyncStub":
        """The RPCs of ApprovalService."""
        return self._channels.stubs().approvals

    def run(
        self,
        text: str,
        *,
        session_id: str = "",
        new_session: pb.SessionSettings | None = None,
        engine: str = "",
        model: str = "",
        max_steps: int | None = None,
        max_cost_micros: int | None = None,
        keep_on_disconnect: bool = False,
        request_id: str | None = None,
        decide: AsyncDecide | None = None,
    ) -> AsyncTurn:
        """Starts a turn. The parameters are the fields of RunTurnRequest, which the proto documents.

        A `request_id` is made where none is given, so that the request can be sent again; empty: it is sent once.

        `decide` decides on tool calls that ask. Without it they wait for answer(), until the gateway's time limit.

        Raises:
            ValueError: both a session and settings for a new one are given.
        """
        if session_id and new_session is not None:
            raise ValueError("session_id goes on with a session, new_session begins one: give one of them")
        request = pb.RunTurnRequest(
            input=text,
            new_session=new_session,
            engine=engine,
            model=model,
            max_steps=max_steps,
            max_cost_micros=max_cost_micros,
            keep_on_disconnect=keep_on_disconnect,
            request_id=str(uuid4()) if request_id is None else request_id,
        )
        if session_id:
            request.session_id = session_id
        return self.run_request(request, decide=decide)

    def run_request(self, request: pb.RunTurnRequest, *, decide: AsyncDecide | None = None) -> AsyncTurn:
        """Starts a turn with a request of your own."""
        return AsyncTurn(self.stub, self.approvals, request, self._access.metadata, decide)

    async def answer(self, call: pb.ToolCallStarted | approvals_pb2.PendingToolCall, decision: Decision | bool) -> None:
        """Decides on a tool call that asks, as its turn's events or ListPendingToolCalls showed it.

        Raises:
            grpc.RpcError: no such call is waiting.
        """
        await self.approvals.AnswerToolCall(answer_request(call, decision), metadata=self._access.metadata())

    async def close(self) -> None:
        """Closes the connection of this event loop, which cancels running turns but those to be kept."""
        await self._channels.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
