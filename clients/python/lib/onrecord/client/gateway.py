"""Turns: run one, hear what happens, answer the calls that ask."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from onrecord.client.access import Access
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from service_kit.server import CLIENT_OPTIONS

DEFAULT_TARGET = "127.0.0.1:50051"


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
                request = _answer_request(asking.id, self._decide(asking))
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
                    request = _answer_request(asking.id, await self._decide(asking))
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


class Gateway:
    """A gateway. `stub` has the RPCs that have no method here."""

    def __init__(self, target: str = DEFAULT_TARGET, access: Access = Access()) -> None:  # noqa: B008 - it is frozen
        """`target` is host:port.

        Raises:
            ValueError, WrongFile: `access` cannot be used.
        """
        self._access = access
        credentials = access.credentials()
        self._channel = (
            grpc.insecure_channel(target, options=CLIENT_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=CLIENT_OPTIONS)
        )
        self.stub = gateway_pb2_grpc.GatewayServiceStub(self._channel)

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
        decide: Decide | None = None,
    ) -> Turn:
        """Begins a turn; the parameters are those of RunTurnRequest, where the proto says what each means.

        `decide` answers the calls that ask. Without it they wait, as long as the gateway lets them, for answer().
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

    def run_request(self, request: pb.RunTurnRequest, *, decide: Decide | None = None) -> Turn:
        """Begins a turn with whatever a request can say."""
        metadata = self._access.metadata()
        return Turn(self.stub, self.stub.RunTurn(request, metadata=metadata), metadata, decide)

    def answer(self, call_id: str, answer: Answer | bool) -> None:
        """Answers a tool call that asks.

        Raises:
            grpc.RpcError: no such call waits.
        """
        self.stub.AnswerToolCall(_answer_request(call_id, answer), metadata=self._access.metadata())

    def close(self) -> None:
        """Closes the connection, which cancels what runs."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncGateway:
    """Gateway for asyncio."""

    def __init__(self, target: str = DEFAULT_TARGET, access: Access = Access()) -> None:  # noqa: B008 - it is frozen
        """See Gateway."""
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
        """See Gateway.run."""
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
        """See Gateway.run_request."""
        metadata = self._access.metadata()
        return AsyncTurn(self.stub, self.stub.RunTurn(request, metadata=metadata), metadata, decide)

    async def answer(self, call_id: str, answer: Answer | bool) -> None:
        """See Gateway.answer."""
        await self.stub.AnswerToolCall(_answer_request(call_id, answer), metadata=self._access.metadata())

    async def close(self) -> None:
        """Closes the connection, which cancels what runs."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _answer_request(call_id: str, answer: Answer | bool) -> pb.AnswerToolCallRequest:
    given = answer if isinstance(answer, Answer) else Answer(answer)
    return pb.AnswerToolCallRequest(id=call_id, allow=given.allow, reason=given.reason)
