"""The tool `grep`: lines in the workspace that match a regular expression, by ripgrep where it is installed."""

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onrecord.audit.v1 import audit_pb2
from pydantic import Field

from gateway_svc.programs import installed
from gateway_svc.tools import ToolContext, ToolError, search
from gateway_svc.tools.arguments import Arguments, PathText, PlainText
from gateway_svc.tools.jail.confine import READ_FLAGS, located, told_errors
from gateway_svc.tools.jail.processes import Ended, Program, run_program
from gateway_svc.tools.jail.sandbox import Sandbox
from recording.calls import ToolResult

LINE = re.compile(r"(?:.+:)?\d+:")
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": os.defpath}
RIPGREP_OPTIONS = (
    *("--no-config", "--no-messages", "--no-ignore", "--hidden", "--no-heading", "--line-number", "--color=never"),
    *("--sort=path", f"--max-filesize={search.MAX_FILE_BYTES}", f"--max-count={search.MAX_MATCHES_PER_FILE}"),
    *(f"--max-columns={search.MAX_LINE_CHARACTERS}", "--max-columns-preview"),
)
# After the glob of the call, since of two that match the later one holds.
SKIPPED = tuple(f"--glob=!{folder}/" for folder in sorted(search.SKIPPED_FOLDERS))


class GrepArguments(Arguments):
    """The arguments of `grep`."""

    pattern: PlainText = Field(min_length=1, max_length=1024, description="The regular expression.")
    path: PathText | None = Field(None, description="The file or folder to search; the workspace when left out.")
    glob: PlainText | None = Field(None, max_length=1024, description="Only files whose path matches, such as *.py.")
    ignore_case: bool | None = Field(None, description="Match letters whatever their case.")


class GrepTool:
    """Searches the content of files."""

    name = "grep"
    description = "Searches files in the workspace for a regular expression; gives path:line number:line."
    parameters = GrepArguments

    def __init__(
        self,
        sandbox: Sandbox | None,
        *,
        ripgrep: bool = True,
        max_output_bytes: int = 40_000,
        timeout_seconds: float = 20,
    ) -> None:
        """`ripgrep` is used when it is installed; without it a search of ours with the same limits takes its place.

        With a sandbox (from find_sandbox) ripgrep runs in it, where a link that a command made leads nowhere.
        """
        self._ripgrep = installed("rg") if ripgrep else None
        if self._ripgrep and sandbox and not Path(self._ripgrep).is_relative_to("/usr"):
            self._ripgrep = None
        self._sandbox = sandbox
        self._max_output_bytes = max_output_bytes
        self._timeout_seconds = timeout_seconds

    async def run(self, arguments: GrepArguments, context: ToolContext) -> ToolResult:
        """Searches in a process of its own, since a hostile expression can keep Python's `re` busy for ever.

        Raises:
            ToolError: no such place, outside the workspace, the expression cannot be used, or it took too long.
        """
        path = arguments.path or "."
        with told_errors(), _opened(context.workspace, path) as (descriptor, is_folder):
            program = self._search_folder if is_folder else self._search_file
            ended = await run_program(
                program(arguments, context.workspace, descriptor),
                timeout_seconds=self._timeout_seconds,
                max_output_bytes=4 * self._max_output_bytes,
                stop_at_bytes=self._max_output_bytes,
            )
        folder = "" if path == "." else f"{path.rstrip('/')}/"
        return self._result(ended, ("./", folder) if is_folder else ("", f"{path}:"))

    def _search_file(self, arguments: GrepArguments, workspace: Path, descriptor: int) -> Program:
        argv = self._argv(arguments, "--no-filename", "-")
        return Program(argv, workspace, ENVIRONMENT, stdin=descriptor)

    def _search_folder(self, arguments: GrepArguments, workspace: Path, descriptor: int) -> Program:
        argv = self._argv(arguments, "--with-filename", "./")
        here = f"/proc/self/fd/{descriptor}"
        if self._ripgrep is None or self._sandbox is None:
            return Program(argv, here, ENVIRONMENT, pass_fds=(descriptor,))
        return self._sandbox.program(argv, workspace, ENVIRONMENT, folder=Path(here).readlink(), writable=False)

    def _argv(self, arguments: GrepArguments, names: str, where: str) -> list[str]:
        if self._ripgrep is None:
            wanted = arguments.model_dump(include={"pattern", "glob", "ignore_case"})
            return [sys.executable, "-I", "-S", search.__file__, where, json.dumps(wanted)]
        return [
            self._ripgrep,
            *RIPGREP_OPTIONS,
            names,
            *(["--ignore-case"] if arguments.ignore_case else []),
            *([f"--glob={arguments.glob}"] if arguments.glob else []),
            *SKIPPED,
            f"--regexp={arguments.pattern}",
            where,
        ]

    def _result(self, ended: Ended, replacement: tuple[str, str]) -> ToolResult:
        told, shown = replacement
        output, cut = ended.output.text(), ended.output.total > self._max_output_bytes
        if cut:
            output = output[: self._max_output_bytes].rpartition("\n")[0]
        lines = output.removesuffix("\n").split("\n") if output else []
        if ended.exit_code and lines and not all(LINE.match(line) for line in lines):
            raise ToolError("the pattern, or the glob, is not one that can be used")
        found = "\n".join(shown + line.removeprefix(told) for line in lines)
        size = len(found.encode(errors="replace"))
        if ended.timed_out:
            message = f"the search took longer than {self._timeout_seconds:g} s and was ended"
            raise ToolError(
                message,
                outcome=audit_pb2.OUTCOME_TIMED_OUT,
                text=f"{found}\n[Error: {message}]".lstrip("\n"),
                result_bytes=size,
                result_truncated=True,
            )
        text = found or "[No line matches.]"
        if cut:
            text += "\n[There are more matches: use a narrower pattern, path or glob.]"
        return ToolResult(text, result_bytes=size, result_truncated=cut)


@contextmanager
def _opened(workspace: Path, path: str) -> Iterator[tuple[int, bool]]:
    """A descriptor of the file or folder, and whether it is a folder."""
    with located(workspace, path) as place:
        descriptor = os.open(place.name, READ_FLAGS, dir_fd=place.folder)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise ToolError("the path is neither a folder nor a regular file")
        yield descriptor, stat.S_ISDIR(mode)
    finally:
        os.close(descriptor)
