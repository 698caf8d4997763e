"""A turn as its client hears it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

from onrecord.client.decisions import Answer, Heard, answer_request, unless_too_late
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

AsyncDecide = Callable[[pb.ToolCallStarted], Awaitable[Answer | bool]]
"""Decides on a tool call that asks. It is called between two events, so that the turn's events wait for it."""


class AsyncTurn(Heard):
    """A turn under way: iterate over it for its events, or over text(), or wait() for its end.

    Each raises grpc.RpcError when the turn fails; code() and details() say why. Who leaves the events early cancels it.
    """

    def __init__(
        self, stub: "gateway_pb2_grpc.GatewayServiceAsyncStub", call: Any, metadata: Any, decide: AsyncDecide | None
    ) -> None:
        super().__init__()
        self._stub = stub
        self._call = call
        self._metadata = metadata
        self._decide = decide

    async def __aiter__(self) -> AsyncIterator[pb.TurnEvent]:
        try:
            async for event in self._call:
                asking = self.hear(event)
                yield event
                if asking is not None and self._decide is not None:
                    request = answer_request(asking.id, await self._decide(asking))
                    with unless_too_late():
                        await self._stub.AnswerToolCall(request, metadata=self._metadata)
        finally:
            self._call.cancel()  # of one that has ended, this does nothing

    async def text(self) -> AsyncIterator[str]:
        """The answer, piece by piece."""
        async for event in self:
            if event.HasField("text_delta"):
                yield event.text_delta.text

    async def wait(self) -> Self:
        """Runs to the end of the turn, and returns it."""
        async for _ in self:
            pass
        return self

    def cancel(self) -> None:
        """Cancels the turn. Its events end with an error: grpc.RpcError of the code CANCELLED, or a cancellation."""
        self._call.cancel()
