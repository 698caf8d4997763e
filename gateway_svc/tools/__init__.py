"""Tools: one module per tool, all behind the Tool protocol, and the one way to run them.

Whatever goes wrong in a tool is told to the model: run() always returns a ToolResult. Only cancellation propagates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from onrecord.audit.v1 import audit_pb2
from pydantic import BaseModel

from recording.calls import Scope, ToolResult


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool call may know of its surroundings."""

    workspace: Path
    """The folder that the tool is confined to, absolute and resolved."""
    scope: Scope | None = None


class ToolError(Exception):
    """Raised by a tool that cannot do its work; holds the result. The message is for the model and the record."""

    def __init__(
        self,
        message: str,
        *,
        outcome: audit_pb2.Outcome.ValueType = audit_pb2.OUTCOME_FAILED,
        exit_code: int | None = None,
        http_status: int | None = None,
        text: str | None = None,
        result_bytes: int = 0,
        result_truncated: bool = False,
    ) -> None:
        super().__init__(message)
        self.result = ToolResult(
            text=f"Error: {message}" if text is None else text,
            outcome=outcome,
            error=message,
            exit_code=exit_code,
            http_status=http_status,
            result_bytes=result_bytes,
            result_truncated=result_truncated,
        )


class Tool(Protocol):
    """Something that a model can ask for."""

    name: str
    description: str

    @property
    def parameters(self) -> type[BaseModel]:
        """The arguments: their JSON Schema is shown to the model, and what the model sends is validated against it."""
        ...

    async def run(self, arguments: Any, context: ToolContext) -> ToolResult:
        """Runs with arguments, an instance of `parameters`.

        Raises:
            ToolError: the tool could not do its work.
        """
        ...


class RemoteTool(Protocol):
    """A tool that runs elsewhere, whose arguments are described by a JSON Schema of its own."""

    @property
    def name(self) -> str:
        """Its name here, `server.tool`."""
        ...

    @property
    def description(self) -> str:
        """What a model is told of it."""
        ...

    @property
    def schema(self) -> dict[str, object]:
        """The arguments, an object."""
        ...

    def check(self, arguments: dict[str, Any]) -> None:
        """Raises ArgumentsError where it is plain that arguments cannot be used."""
        ...

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Runs with arguments.

        Raises:
            ToolError: the tool could not do its work.
        """
        ...
