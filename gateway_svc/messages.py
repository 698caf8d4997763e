"""What a conversation is made of, in no model server's format."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a tool call belongs to: what an audit row says besides the call itself."""

    session_id: str
    engine: str
    model: str = ""
    turn_id: str = ""
    trace_id: str = ""
    """The W3C trace that the turn belongs to: 32 lower-case hexadecimal digits, or empty."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's request to run a tool."""

    id: str
    """A UUIDv7 of ours, since a model server's ids may be missing or repeat: the id of the audit row."""
    tool_call_id: str
    """The model server's id, which its protocol wants back with the result; made up where the server gave none."""
    name: str
    """The tool's name as the model wrote it."""
    arguments: str
    """The arguments as the model wrote them: JSON text, which may be malformed."""


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
class Usage:
    """Tokens of one model request."""

    input_tokens: int = 0
    """Tokens read, those from a cache included."""
    output_tokens: int = 0
    """Tokens written, those of reasoning included."""
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    complete: bool = True
    """False when the answer was cut, or the server sent no usage, so that the counts are short of the truth."""


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """What a model is told about a tool."""

    name: str
    description: str
    parameters: dict[str, object] = field(default_factory=dict)
    """JSON Schema of the arguments, an object."""
