"""Tools: one module per tool, each of which defines a `KIND`, and the toolbox, which runs them.

The model hears of every failure of a tool: run() always returns a ToolResult. Only cancellation propagates.
A module with a KIND in this package is a tool that deployments can offer; no list names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, get_args

from onrecord.common.v1 import common_pb2
from pydantic import BaseModel

from recording.calls import Scope, ToolResult
from recording.show import Show
from service_kit.settings import Settings

if TYPE_CHECKING:
    from gateway_svc.tools.files import Files
    from gateway_svc.tools.jail.sandbox import Sandbox
    from gateway_svc.tools.workers import Workers


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The context of a tool call."""

    files: "Files"
    """The workspace; no path in it leads outside."""
    scope: Scope | None = None


class ToolError(Exception):
    """A tool failed; holds the result. The message is for the model and the record."""

    def __init__(
        self,
        message: str,
        *,
        outcome: common_pb2.Outcome.ValueType = common_pb2.OUTCOME_FAILED,
        exit_code: int | None = None,
        http_status: int | None = None,
        text: str | None = None,
        result_bytes: int = 0,
        result_truncated: bool = False,
        rule: str = "",
    ) -> None:
        """`rule` names the rule or confinement that refused the call: its outcome is then OUTCOME_DENIED."""
        super().__init__(message)
        self.result = ToolResult(
            text=f"Error: {message}" if text is None else text,
            outcome=common_pb2.OUTCOME_DENIED if rule else outcome,
            error=message,
            exit_code=exit_code,
            http_status=http_status,
            result_bytes=result_bytes,
            result_truncated=result_truncated,
            rule=rule,
        )


class Tool(Protocol):
    """A tool that a model can call."""

    name: str
    description: str

    @property
    def parameters(self) -> type[BaseModel]:
        """The arguments: the model gets their JSON Schema, and its calls are validated against it."""
        ...

    async def run(self, arguments: Any, context: ToolContext) -> ToolResult:
        """Runs with arguments, an instance of `parameters`.

        Raises:
            ToolError: the tool failed.
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
        """The description for the model."""
        ...

    @property
    def schema(self) -> dict[str, object]:
        """The JSON Schema of the arguments, an object."""
        ...

    def check(self, arguments: dict[str, Any]) -> None:
        """Raises ArgumentsError if the arguments are obviously unusable."""
        ...

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Runs with arguments.

        Raises:
            ToolError: the tool failed.
        """
        ...


class NoSettings(Settings):
    """The settings of a tool without settings."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a deployment provides for building its tools."""

    jail: "Sandbox | None"
    """The sandbox for programs; None if the machine has none, or the deployment does without."""
    workers: "Workers"
    """Runs work that must be killed at its time limit."""
    call_seconds: float
    """The toolbox's time limit for a call, in seconds."""


@dataclass(frozen=True, slots=True)
class ToolKind:
    """A tool that deployments can offer, under the name KIND in its module."""

    tool: type[Tool]
    build: Callable[[Any, Surroundings], Tool] | None = None
    """Builds the tool from its settings; by default, its class is called without arguments."""
    settings: type[Settings] = NoSettings
    """Its settings, with the prefix `GATEWAY_` and its name; docs/operations.md lists them."""
    starts_programs: bool = field(default=False)
    """Whether it runs programs of the model's choice: without a sandbox it is offered only on request."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name

    @property
    def parameters(self) -> type[BaseModel]:
        """The tool's parameters."""
        parameters: Any = self.tool.parameters
        return parameters  # type: ignore[no-any-return]

    @property
    def shown(self) -> Mapping[str, Show]:
        """How the record shows each parameter: by the Show in its annotation, else by type and size alone."""
        return {
            name: _show([*field.metadata, field.annotation]) for name, field in self.parameters.model_fields.items()
        }


def _show(parts: list[Any]) -> Show:
    for part in parts:
        if isinstance(part, Show):
            return part
        if (inner := _show([*getattr(part, "__metadata__", ()), *get_args(part)])) is not Show.SHAPE:
            return inner
    return Show.SHAPE
