"""A turn, as its client sees it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import grpc
from onrecord.client.decisions import Decision, TurnState, answer_request, ignore_too_late, wait_before
from onrecord.gateway.v1 import approvals_pb2_grpc, gateway_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

AsyncDecide = Callable[[pb.ToolCallStarted], Awaitable[Decision | bool]]
"""Decides on a tool call that asks. It is called between two events, which wait for it."""


class AsyncTurn(TurnState):
    """A running turn: iterate over it for its events, or over text(), or wait() for its end.

    Each raises TurnFailed if the turn fails, another grpc.RpcError if nothing ran or the connection broke; code() and
    details() say why. Leaving the loop early cancels the turn, unless it was asked to be kept.

    While the gateway is UNAVAILABLE, a request with a request_id is sent again, and a stream that broke goes on.
    """

    def __init__(
        self,
        gateway: "gateway_pb2_grpc.GatewayServiceAsyncStub",
        approvals: "approvals_pb2_grpc.ApprovalServiceAsyncStub",
        request: pb.RunTurnRequest,
        metadata: Callable[[], Any],
        decide: AsyncDecide | None,
    ) -> None:
        super().__init__()
        self._gateway = gateway
        self._approvals = approvals
        self._request = request
        self._metadata = metadata
        self._decide = decide
        self._call: Any = self._open()

    async def __aiter__(self) -> AsyncIterator[pb.TurnEvent]:
        try:
            while (event := await self._next()) is not None:
                asking = self.update(event)
                yield event
                if asking is not None and self._decide is not None:
                    request = answer_request(asking, await self._decide(asking))
                    with ignore_too_late():
                        await self._approvals.AnswerToolCall(request, metadata=self._metadata())
            self.raise_failure()
        finally:
            self._call.cancel()  # does nothing if it has ended

    def _open(self) -> Any:
        if not self.turn_id:
            return self._gateway.RunTurn(self._request, metadata=self._metadata())
        rest = pb.AttachTurnRequest(turn_id=self.turn_id, after_sequence=self.sequence)
        return self._gateway.AttachTurn(rest, metadata=self._metadata())

    async def _next(self) -> pb.TurnEvent | None:
        """The next event; None after the last."""
        failures = 0
        event: pb.TurnEvent
        while True:
            try:
                async for event in self._call:
                    return event
                return None
            except grpc.RpcError as error:
                if self.finished is not None:  # nothing follows, and who asks anew may be told of no such turn
                    return None
                failures += 1
                seconds = wait_before(error, failures, again=bool(self.turn_id or self._request.request_id))
                if seconds is None:
                    raise
            await asyncio.sleep(seconds)
            self._call = self._open()

    async def text(self) -> AsyncIterator[str]:
        """The answer, piece by piece."""
        async for event in self:
            if event.HasField("text_delta"):
                yield event.text_delta.text

    async def wait(self) -> Self:
        """Waits for the end of the turn; returns the turn."""
        async for _ in self:
            pass
        return self

    def cancel(self) -> None:
        """Cancels the turn. Its iterators end with an error: grpc.RpcError with code CANCELLED, or a cancellation."""
        self._call.cancel()
