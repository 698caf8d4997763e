"""A turn, as its client sees it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

from onrecord.client.decisions import Decision, TurnState, answer_request, ignore_too_late
from onrecord.gateway.v1 import approvals_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

AsyncDecide = Callable[[pb.ToolCallStarted], Awaitable[Decision | bool]]
"""Decides on a tool call that asks. It is called between two events, which wait for it."""


class AsyncTurn(TurnState):
    """A running turn: iterate over it for its events, or over text(), or wait() for its end.

    Each raises TurnFailed if the turn fails, another grpc.RpcError if nothing ran or the connection broke; code() and
    details() say why. Leaving the loop early cancels the turn.
    """

    def __init__(
        self,
        approvals: "approvals_pb2_grpc.ApprovalServiceAsyncStub",
        call: Any,
        metadata: Any,
        decide: AsyncDecide | None,
    ) -> None:
        super().__init__()
        self._approvals = approvals
        self._call = call
        self._metadata = metadata
        self._decide = decide

    async def __aiter__(self) -> AsyncIterator[pb.TurnEvent]:
        try:
            async for event in self._call:
                asking = self.update(event)
                yield event
                if asking is not None and self._decide is not None:
                    request = answer_request(asking.tool_call_id, await self._decide(asking))
                    with ignore_too_late():
                        await self._approvals.AnswerToolCall(request, metadata=self._metadata)
            self.raise_failure()
        finally:
            self._call.cancel()  # does nothing if it has ended

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
