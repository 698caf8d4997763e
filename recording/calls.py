"""What a producer says of a call, of its result and of a model request, before any of it is a row."""

import re
from dataclasses import dataclass

from onrecord.audit.v1 import audit_pb2


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
class ToolResult:
    """How a tool call ended."""

    text: str
    """What the model is told."""
    outcome: audit_pb2.Outcome.ValueType = audit_pb2.OUTCOME_SUCCEEDED
    error: str | None = None
    """Why the tool could not do its work: a sentence of ours, for the record. It quotes no content, no argument's value
    and nobody else's words, which go into `text`."""
    exit_code: int | None = None
    http_status: int | None = None
    result_bytes: int = 0
    """The size of the whole result in bytes, before any cut."""
    result_truncated: bool = False
    started_at_ms: int = 0
    """When the call began, in milliseconds since 1970-01-01 UTC; set by run()."""
    duration_ms: int = 0
    """How long the call took, by a monotonic clock; set by run()."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model request."""

    input_tokens: int = 0
    """Tokens read, those from a cache included."""
    output_tokens: int = 0
    """Tokens written, those of reasoning included."""
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_input_tokens: int = 0
    """Tokens read that were put into a cache, which some providers charge more for."""
    complete: bool = True
    """False when the answer was cut, or the server sent no usage, so that the counts are short of the truth."""


_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model request failed, as it may be recorded: no word of it comes from a server, a model or a caller."""

    code: str
    """One of the producer's closed list, in snake_case."""
    http_status: int | None = None
    """What the server answered, where it did."""

    def __str__(self) -> str:
        """As the cost row has it. A code that is none, such as a sentence, is `unknown`."""
        code = self.code if _CODE.fullmatch(self.code) else "unknown"
        return code if self.http_status is None else f"{code}, HTTP {self.http_status:d}"
