"""The tool `glob`: the names of files in the workspace that match a pattern."""

import asyncio
import time
from pathlib import Path

from pydantic import Field

from gateway_svc.tools import ToolContext
from gateway_svc.tools.arguments import Arguments, PathText, PlainText
from gateway_svc.tools.jail.confine import opened_folder, told_errors
from gateway_svc.tools.search import Glob, walk
from recording.calls import ToolResult


class GlobArguments(Arguments):
    """The arguments of `glob`."""

    pattern: PlainText = Field(
        min_length=1,
        max_length=1024,
        description="Names with * and ?, folders parted by /, ** for any folders: src/**/*.py",
    )
    path: PathText | None = Field(None, description="The folder to look in; the workspace when left out.")


class GlobTool:
    """Finds files by their names."""

    name = "glob"
    description = "Lists the files in the workspace whose path matches a pattern, such as **/*.py."
    parameters = GlobArguments

    def __init__(self, *, max_files: int = 1_000, max_visited: int = 200_000, timeout_seconds: float = 20) -> None:
        """`max_files` bounds what is listed; `max_visited` and `timeout_seconds` bound how much is looked at."""
        self._max_files = max_files
        self._max_visited = max_visited
        self._timeout_seconds = timeout_seconds

    async def run(self, arguments: GlobArguments, context: ToolContext) -> ToolResult:
        """Looks in a thread.

        Raises:
            ToolError: no such folder, or outside the workspace.
        """
        return await asyncio.to_thread(self._list, context.workspace, arguments)

    def _list(self, workspace: Path, arguments: GlobArguments) -> ToolResult:
        pattern = Glob(arguments.pattern)
        prefix = "" if arguments.path in (None, ".") else f"{str(arguments.path).rstrip('/')}/"
        deadline = time.monotonic() + self._timeout_seconds
        files: list[str] = []
        why_cut = ""
        with told_errors(), opened_folder(workspace, arguments.path or ".") as folder:
            for visited, (path, _, _, is_folder) in enumerate(walk(folder)):
                if visited >= self._max_visited or time.monotonic() > deadline:
                    why_cut = f"the search ended after {visited} files and folders"
                    break
                if not is_folder and pattern.matches(path):
                    if len(files) == self._max_files:
                        why_cut = f"only the first {self._max_files} files are listed"
                        break
                    files.append(prefix + path)
        listing = "\n".join(files)
        text = listing or "[No file matches.]"
        if why_cut:
            text += f"\n[{why_cut[0].upper()}{why_cut[1:]}: use a narrower pattern or path.]"
        return ToolResult(text, result_bytes=len(listing.encode(errors="replace")), result_truncated=bool(why_cut))
