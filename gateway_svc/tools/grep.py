"""The tool `grep`: lines in the workspace that match a regular expression, by ripgrep where it is installed."""

import os
import re
from collections import Counter
from typing import Annotated

import structlog
from onrecord.common.v1 import common_pb2
from pydantic import Field

from gateway_svc.programs import installed
from gateway_svc.tools import Surroundings, ToolContext, ToolError, ToolKind
from gateway_svc.tools.arguments import Arguments, Flag, PathText, PlainText
from gateway_svc.tools.files import Files, OpenedPath
from gateway_svc.tools.jail.libraries import files_of
from gateway_svc.tools.jail.probe import why_not
from gateway_svc.tools.jail.processes import Program, ProgramResult, run_program
from gateway_svc.tools.jail.sandbox import Sandbox
from gateway_svc.tools.workers import Workers, search
from recording.calls import ToolResult
from recording.show import Show

BAD_PATTERN = 2
EXIT_CODES = (0, 1, BAD_PATTERN)
"""Exit codes with matches, without, and with a bad pattern or something unreadable."""
LINE = re.compile(r"(?:(.+?):)?\d+:")
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": os.defpath}
RIPGREP_OPTIONS = (
    *("--no-config", "--no-messages", "--no-ignore", "--hidden", "--no-heading", "--line-number", "--color=never"),
    *("--sort=path", f"--max-filesize={search.MAX_FILE_BYTES}", f"--max-count={search.MAX_MATCHES_PER_FILE + 1}"),
    *(f"--max-columns={search.MAX_LINE_CHARACTERS}", "--max-columns-preview"),
)
# After the glob of the call, since the last matching glob wins.
SKIPPED = tuple(f"--glob=!{folder}/" for folder in sorted(search.SKIPPED_FOLDERS))


log = structlog.get_logger(__name__)


class GrepArguments(Arguments):
    """The arguments of `grep`."""

    pattern: Annotated[PlainText, Show.TEXT] = Field(
        min_length=1, max_length=1024, description="The regular expression."
    )
    path: PathText | None = Field(None, description="The file or folder to search; the workspace when left out.")
    glob: Annotated[PlainText | None, Show.TEXT] = Field(
        None, max_length=1024, description="Only files whose path matches, such as *.py."
    )
    ignore_case: Flag = Field(None, description="Ignore the case of letters.")


class GrepTool:
    """Searches the content of files."""

    name = "grep"
    description = "Searches files in the workspace for a regular expression; gives path:line number:line."
    parameters = GrepArguments

    def __init__(
        self,
        jail: Sandbox | None,
        workers: Workers,
        *,
        ripgrep: bool = True,
        max_output_bytes: int = 40_000,
        timeout_seconds: float = 20,
    ) -> None:
        """`ripgrep` is used if it is installed and there is a sandbox for it, where links lead nowhere: it sees nothing
        of the system but what it needs to start.

        Otherwise a worker takes its place, with the same limits, which follows no links.
        """
        self._ripgrep = installed("rg") if ripgrep and jail else None
        self._shown = files_of(self._ripgrep) if self._ripgrep else ()
        if self._ripgrep and jail and (reason := why_not(jail, [self._ripgrep, "--version"], self._shown)):
            log.warning("grep.without_ripgrep", reason=reason)
            self._ripgrep = None
        self._jail = jail
        self._workers = workers
        self._max_output_bytes = max_output_bytes
        self._timeout_seconds = timeout_seconds

    async def run(self, arguments: GrepArguments, context: ToolContext) -> ToolResult:
        """Searches in a process of its own, since a hostile expression can keep `re` busy for ever.

        Raises:
            ToolError: no such path, outside the workspace, an invalid expression, or it took too long.
        """
        path = arguments.path or "."
        async with context.files.opening(path) as opened:
            try:
                if self._ripgrep and self._jail:
                    ended = await self._run_ripgrep(self._ripgrep, self._jail, arguments, context.files, opened)
                else:
                    ended = await self._run_worker(arguments, opened)
            except OSError as error:
                raise ToolError(f"the search could not be started ({type(error).__name__})") from None
        folder = "" if path == "." else f"{path.rstrip('/')}/"
        return self._result(ended, ("./", folder) if opened.is_folder else ("", f"{path}:"))

    async def _run_worker(self, arguments: GrepArguments, opened: OpenedPath) -> ProgramResult:
        wanted = arguments.model_dump(include={"pattern", "glob", "ignore_case"})
        place = {"folder": opened.descriptor} if opened.is_folder else {"stdin": opened.descriptor}
        return await self._workers.run(
            "search",
            {"do": "grep", "stdin": not opened.is_folder, **wanted},
            **place,
            timeout_seconds=self._timeout_seconds,
            max_output_bytes=4 * self._max_output_bytes,
            stop_at_bytes=self._max_output_bytes,
        )

    async def _run_ripgrep(
        self, ripgrep: str, jail: Sandbox, arguments: GrepArguments, files: Files, opened: OpenedPath
    ) -> ProgramResult:
        argv = [
            ripgrep,
            *RIPGREP_OPTIONS,
            "--with-filename" if opened.is_folder else "--no-filename",
            *(["--ignore-case"] if arguments.ignore_case else []),
            *([f"--glob={arguments.glob}"] if arguments.glob else []),
            *SKIPPED,
            f"--regexp={arguments.pattern}",
            "./" if opened.is_folder else "-",
        ]
        if opened.is_folder:
            program = jail.program(argv, files, ENVIRONMENT, folder=opened, writable=False, only=self._shown)
        else:
            program = Program(argv, "/", ENVIRONMENT, stdin=opened.descriptor, starts_others=False)
        return await run_program(
            program,
            timeout_seconds=self._timeout_seconds,
            max_output_bytes=4 * self._max_output_bytes,
            stop_at_bytes=self._max_output_bytes,
        )

    def _result(self, ended: ProgramResult, replacement: tuple[str, str]) -> ToolResult:
        told, shown = replacement
        output, cut = ended.output.text(), ended.output.total > self._max_output_bytes
        if cut:
            output = output[: self._max_output_bytes].rpartition("\n")[0]
        lines = output.removesuffix("\n").split("\n") if output else []
        if ended.exit_code and lines and not all(LINE.match(line) for line in lines):
            if ended.exit_code == BAD_PATTERN:
                raise ToolError("the pattern, or the glob, is not one that can be used")
            raise ToolError("the search could not be made: its jail failed")
        if ended.exit_code not in (None, *EXIT_CODES):
            raise ToolError("the search could not be made: it was too much for its limits")
        kept = _beginnings(lines) if told else lines[: search.MAX_MATCHES_PER_FILE]
        cut = cut or len(kept) < len(lines)
        found = "\n".join(shown + line.removeprefix(told) for line in kept)
        size = len(found.encode(errors="replace"))
        if ended.timed_out:
            message = f"the search took longer than {self._timeout_seconds:g} s and was ended"
            raise ToolError(
                message,
                outcome=common_pb2.OUTCOME_TIMED_OUT,
                text=f"{found}\n[Error: {message}]".lstrip("\n"),
                result_bytes=size,
                result_truncated=True,
            )
        text = found or "[No line matches.]"
        if cut:
            text += "\n[There are more matches: use a narrower pattern, path or glob.]"
        return ToolResult(text, result_bytes=size, result_truncated=cut)


def _beginnings(lines: list[str]) -> list[str]:
    """The lines, but of each file no more than may be shown."""
    counts = Counter[str]()
    kept: list[str] = []
    for line in lines:
        path = found[1] if (found := LINE.match(line)) else ""
        counts[path] += 1
        if counts[path] <= search.MAX_MATCHES_PER_FILE:
            kept.append(line)
    return kept


def _build(_: object, surroundings: Surroundings) -> GrepTool:
    return GrepTool(surroundings.jail, surroundings.workers)


KIND = ToolKind(GrepTool, _build)
