"""The messages of a conversation, independent of any model server's format."""

from dataclasses import dataclass, field
from typing import Protocol

from recording.calls import ToolCall


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instructions at the beginning of the conversation."""

    text: str


@dataclass(frozen=True, slots=True)
class UserMessage:
    """The user's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Native:
    """An answer as its server sent it, for servers that want it back unchanged. No other server can read it."""

    origin: str
    """The API and the server that sent it, as the engine names them."""
    model: str
    """The requested model."""
    items: tuple[str, ...]
    """Its parts in order, each as JSON text."""


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """A model's answer in one step."""

    text: str = ""
    thinking: str = ""
    """The model's reasoning, if the server shows it. Ollama wants it back with tool calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    native: Native | None = None
    """Set if the server wants more back than the text and the calls."""


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """A tool's result as the model sees it."""

    provider_call_id: str
    tool_name: str
    text: str


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class EncodedConversation(Protocol):
    """A conversation as an engine sends it."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as it is described to a model."""

    name: str
    description: str
    parameters: dict[str, object] = field(default_factory=dict)
    """The JSON Schema of the arguments, an object."""
