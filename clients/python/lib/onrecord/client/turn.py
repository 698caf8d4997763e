"""A turn as its client hears it, and the decisions on calls that ask."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision on a tool call that asks."""

    allow: bool
    reason: str = ""
    """Told to the model when the call may not run."""


Decide = Callable[[pb.ToolCallStarted], Answer | bool]
"""Decides on a tool call that asks. It is called between two events, so that the turn's events wait for it."""
AsyncDecide = Callable[[pb.ToolCallStarted], Awaitable[Answer | bool]]


def ask_in_terminal(call: pb.ToolCallStarted) -> Answer:
    """Asks who sits at the terminal."""
    said = input(f"{call.tool_name} {call.args_summary}\nallow? [y/N] ")
    return Answer(said.strip().lower() in ("y", "yes"), "the user said no")


class _Heard:
    """What a turn has told so far."""

    def __init__(self) -> None:
        self.started: pb.TurnStarted | None = None
        self.finished: pb.TurnFinished | None = None
        """Set when the turn has ended; why, and what it took."""
        self.answer = ""
        """All text so far."""

    @property
    def session_id(self) -> str:
        """The session, for the next turn; empty before the first event."""
        return self.started.session_id if self.started else ""

    @property
    def turn_id(self) -> str:
        """The turn, for cancel(); empty before the first event."""
        return self.started.turn_id if self.started else ""

    def hear(self, event: pb.TurnEvent) -> pb.ToolCallStarted | None:
        """Takes an event; returns the call in it that asks."""
        match event.WhichOneof("event"):
            case "turn_started":
                self.started = event.turn_started
            case "text_delta":
                self.answer += event.text_delta.text
            case "tool_call_started" if event.tool_call_started.awaiting_answer:
                return event.tool_call_started
            case "turn_finished":
                self.finished = event.turn_finished
        return None


class Turn(_Heard):
    """A turn under way: iterate over it for its events, or over text(), or wait() for its end.

    Each raises grpc.RpcError when the turn fails; code() and details() say why.
    """

    def __init__(
        self, stub: "gateway_pb2_grpc.GatewayServiceStub", call: Any, metadata: Any, decide: Decide | None
    ) -> None:
        super().__init__()
        self._stub = stub
        self._call = call
        self._metadata = metadata
        self._decide = decide

    def __iter__(self) -> Iterator[pb.TurnEvent]:
        for event in self._call:
            asking = self.hear(event)
            yield event
            if asking is not None and self._decide is not None:
                request = answer_request(asking.id, self._decide(asking))
                with _unless_too_late():
                    self._stub.AnswerToolCall(request, metadata=self._metadata)

    def text(self) -> Iterator[str]:
        """The answer, piece by piece."""
        for event in self:
            if event.HasField("text_delta"):
                yield event.text_delta.text

    def wait(self) -> Self:
        """Runs to the end of the turn, and returns it."""
        for _ in self:
            pass
        return self

    def cancel(self) -> None:
        """Cancels the turn. Its events end with grpc.RpcError of the code CANCELLED."""
        self._call.cancel()


class AsyncTurn(_Heard):
    """Turn for asyncio: `async for` over it or over text(), or `await wait()`."""

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
                    with _unless_too_late():
                        await self._stub.AnswerToolCall(request, metadata=self._metadata)
        except (asyncio.CancelledError, GeneratorExit):
            self._call.cancel()
            raise

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
        """Cancels the turn."""
        self._call.cancel()


def answer_request(call_id: str, answer: Answer | bool) -> pb.AnswerToolCallRequest:
    """The request that gives an answer."""
    given = answer if isinstance(answer, Answer) else Answer(answer)
    return pb.AnswerToolCallRequest(id=call_id, allow=given.allow, reason=given.reason)


@contextmanager
def _unless_too_late() -> Iterator[None]:
    """A call that waits no more was answered by others, or was given up: the turn goes on, and its events tell."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
