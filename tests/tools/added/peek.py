"""A tool that opens what a model names by itself: the attacks on paths must find it."""

from gateway_svc.tools import ToolContext, ToolKind
from gateway_svc.tools.arguments import Arguments, PathText
from recording.calls import ToolResult


class PeekArguments(Arguments):
    """The arguments of `peek`."""

    path: PathText


class PeekTool:
    """Reads a file, wherever it is."""

    name = "peek"
    description = "Reads a file."
    parameters = PeekArguments

    async def run(self, arguments: PeekArguments, context: ToolContext) -> ToolResult:
        """Reads."""
        try:
            return ToolResult((context.files.path / arguments.path).read_text())
        except (OSError, ValueError) as error:
            return ToolResult(type(error).__name__, error="it cannot be read")


KIND = ToolKind(PeekTool)
