"""The tool `write`: creates or replaces a whole file in the workspace."""

from functools import partial

from pydantic import Field

from gateway_svc.tools import ToolContext, ToolError, ToolKind
from gateway_svc.tools.arguments import Arguments, PathText
from recording.calls import ToolResult


class WriteArguments(Arguments):
    """The arguments of `write`."""

    path: PathText = Field(description="The file: relative to the workspace, or absolute. Missing folders are made.")
    content: str = Field(description="The whole content of the file.")


class WriteTool:
    """Creates or replaces a file."""

    name = "write"
    description = "Writes a file in the workspace, replacing what it held. To change a part of a file, use edit."
    parameters = WriteArguments

    def __init__(self, *, max_bytes: int = 2_000_000) -> None:
        """`max_bytes` is the largest file that a call may write."""
        self._max_bytes = max_bytes

    async def run(self, arguments: WriteArguments, context: ToolContext) -> ToolResult:
        """Writes in a thread.

        Raises:
            ToolError: outside the workspace, not a regular file, too large, or the disk refuses it.
        """
        content = arguments.content.encode()
        if len(content) > self._max_bytes:
            raise ToolError(f"the content is larger than {self._max_bytes} bytes")
        existed = await context.files.changing.run(partial(context.files.replace, arguments.path, content))
        text = f"{'Replaced' if existed else 'Made'} the file ({len(content)} bytes)."
        return ToolResult(text=text, result_bytes=len(text))


KIND = ToolKind(WriteTool)
