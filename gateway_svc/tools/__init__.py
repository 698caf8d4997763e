"""Tools: one module per tool, each of which offers its `KIND`, and the one way to run them (toolbox).

Whatever goes wrong in a tool is told to the model: run() always returns a ToolResult. Only cancellation propagates.
A module with a KIND in this package is a tool that deployments can offer; nothing else needs to be told of it.
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
    """What a tool call may know of its surroundings."""

    files: "Files"
    """The workspace, which nothing in it leads out of."""
    scope: Scope | None = None


class ToolError(Exception):
    """Raised by a tool that cannot do its work; holds the result. The message is for the model and the record."""

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


class NoSettings(Settings):
    """Of a tool that has none."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a deployment has for its tools when they are built."""

    jail: "Sandbox | None"
    """What programs run in; None where the machine has no such thing, or the deployment does without."""
    workers: "Workers"
    """Where work runs that must be killed when its time is over."""
    call_seconds: float
    """How long the toolbox lets a call run."""


@dataclass(frozen=True, slots=True)
class ToolKind:
    """A tool that deployments can offer. Its module has one, under the name KIND."""

    tool: type[Tool]
    build: Callable[[Any, Surroundings], Tool] | None = None
    """Makes the tool from its settings; where it is not given, the tool is made without arguments."""
    settings: type[Settings] = NoSettings
    """Its settings, whose prefix is `GATEWAY_` and its name: what their fields say is shown in docs/operations.md."""
    starts_programs: bool = field(default=False)
    """Whether it starts programs of the model's choice: without a jail it is offered only where that is asked for."""

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
        """How each parameter is shown on the record: as a Show in its annotation says, else by type and size alone."""
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
