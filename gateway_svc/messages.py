"""What a conversation is made of, in no model server's format."""

from dataclasses import dataclass, field

from recording.calls import ToolCall


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instructions ahead of the conversation."""

    text: str


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What the user says."""

    text: str


@dataclass(frozen=True, slots=True)
class Native:
    """An answer as its server sent it, for a server that wants it back as it was. Nobody else can read it."""

    origin: str
    """The API and the server that it came from, as the engine names them."""
    model: str
    """The model that was asked for."""
    items: tuple[str, ...]
    """Its parts in their order, each as JSON text."""


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """What a model answered in one step."""

    text: str = ""
    thinking: str = ""
    """The model's reasoning where the server shows it. Ollama wants it back with tool calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    native: Native | None = None
    """Set where the text and the calls are not all that the server wants back."""


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """A tool's result as the model is told it."""

    tool_call_id: str
    tool_name: str
    text: str


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """What a model is told about a tool."""

    name: str
    description: str
    parameters: dict[str, object] = field(default_factory=dict)
    """JSON Schema of the arguments, an object."""
