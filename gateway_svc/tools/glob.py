"""The tool `glob`: the names of files in the workspace that match a pattern."""

from typing import Annotated

from onrecord.common.v1 import common_pb2
from pydantic import Field

from gateway_svc.tools import ToolContext, ToolError, ToolKind
from gateway_svc.tools.arguments import Arguments, PathText, PlainText
from gateway_svc.tools.workers import Workers
from recording.calls import ToolResult
from recording.show import Show

MAX_PATH_BYTES = 4_096


class GlobArguments(Arguments):
    """The arguments of `glob`."""

    pattern: Annotated[PlainText, Show.TEXT] = Field(
        min_length=1,
        max_length=1024,
        description="Names with * and ?, folders separated by /, ** for any folders: src/**/*.py",
    )
    path: PathText | None = Field(None, description="The folder to look in; the workspace when left out.")


class GlobTool:
    """Finds files by their names."""

    name = "glob"
    description = "Lists the files in the workspace whose path matches a pattern, such as **/*.py."
    parameters = GlobArguments

    def __init__(
        self, workers: Workers, *, max_files: int = 1_000, max_visited: int = 200_000, timeout_seconds: float = 20
    ) -> None:
        """`max_files` bounds the result; `max_visited` and `timeout_seconds` bound the search."""
        self._workers = workers
        self._max_files = max_files
        self._max_visited = max_visited
        self._timeout_seconds = timeout_seconds

    async def run(self, arguments: GlobArguments, context: ToolContext) -> ToolResult:
        """Searches in a process of its own, which ends with the call: many folders and long patterns take time.

        Raises:
            ToolError: no such folder, outside the workspace, or the search failed.
        """
        wanted = {
            "do": "glob",
            "pattern": arguments.pattern,
            "max_files": self._max_files,
            "max_visited": self._max_visited,
        }
        async with context.files.opening(arguments.path or ".") as opened:
            if not opened.is_folder:
                raise ToolError("a part of the path is not a folder")
            try:
                ended = await self._workers.run(
                    "search",
                    wanted,
                    folder=opened.descriptor,
                    timeout_seconds=self._timeout_seconds,
                    max_output_bytes=2 * MAX_PATH_BYTES * (self._max_files + 1),
                )
            except OSError as error:
                raise ToolError(f"the search could not be started ({type(error).__name__})") from None
        *names, _ = ended.output.text().split("\0")
        if ended.timed_out and not names:
            message = f"the search took longer than {self._timeout_seconds:g} s and was ended"
            raise ToolError(message, outcome=common_pb2.OUTCOME_TIMED_OUT)
        if ended.exit_code not in (0, 3, None):
            raise ToolError("the search could not be made: the pattern, or the folder, is too much for it")
        why_cut = ""
        if len(names) > self._max_files:
            why_cut = f"only the first {self._max_files} files are listed"
        elif ended.timed_out:
            why_cut = f"the search was ended after {self._timeout_seconds:g} s"
        elif ended.exit_code:
            why_cut = f"the search ended after {self._max_visited} files and folders"
        prefix = "" if arguments.path in (None, ".") else f"{str(arguments.path).rstrip('/')}/"
        listing = "\n".join(prefix + name for name in names[: self._max_files])
        text = listing or "[No file matches.]"
        if why_cut:
            text += f"\n[{why_cut[0].upper()}{why_cut[1:]}: use a narrower pattern or path.]"
        return ToolResult(text, result_bytes=len(listing.encode(errors="replace")), result_truncated=bool(why_cut))


KIND = ToolKind(GlobTool, lambda _, surroundings: GlobTool(surroundings.workers))
