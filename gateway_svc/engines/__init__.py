"""Engines: one module per kind of model server, all behind the Engine protocol.

An engine is asked for one step at a time, and gets messages encoded: encode_message turns each message into the
server's form once, the caller keeps it, and a request only joins them. So a step costs only the bytes that it sends,
however long the conversation is.

A new engine is one new module here that defines a `KIND`: see gateway_svc.engines.kinds.
"""

from collections.abc import AsyncGenerator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gateway_svc.messages import AssistantMessage, Message, ToolDefinition
from recording.calls import Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class StepResult:
    """A whole answer, the last event of a step."""

    message: AssistantMessage
    usage: Usage
    model: str
    """The model that answered, as the server names it; the requested name where it says nothing."""
    finish: Literal["stop", "length", "content_filter"] = "stop"
    """Why the model stopped. Only message.tool_calls says whether it wants tools."""


StepEvent = TextDelta | StepResult


Encoded = Sized
"""A message as an engine encoded it. Opaque to all others; its length is roughly its size in bytes."""


class Engine(Protocol):
    """A model server."""

    name: str
    default_model: str

    def encode_message(self, message: Message) -> Encoded:
        """Encodes a message for this engine's requests. Only this engine reads the result."""
        ...

    def encode_tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        """The request's list of tools, as JSON."""
        ...

    def step(self, model: str, messages: Sequence[Any], tools: bytes) -> AsyncGenerator[StepEvent, None]:
        """Asks the model once and streams its answer: any number of TextDelta, then one StepResult.

        Closing the generator, or cancelling its consumer, closes the request. Connect errors, 429 and 5xx are tried
        again with backoff, but never after the first event.

        Raises:
            EngineError: the server did not answer as it should (see gateway_svc.errors).
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections."""
        ...
