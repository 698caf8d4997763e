"""The tool `read`: a piece of a text file in the workspace."""

import codecs
import os
from functools import partial
from typing import BinaryIO

from pydantic import Field

from gateway_svc.tools import ToolContext, ToolError, ToolKind
from gateway_svc.tools.arguments import Arguments, Number, PathText
from gateway_svc.tools.files import Files
from recording.calls import ToolResult

MAX_SCANNED_BYTES = 256 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class ReadArguments(Arguments):
    """The arguments of `read`."""

    path: PathText = Field(description="The file: relative to the workspace, or absolute.")
    offset: Number = Field(None, ge=1, description="The first line to read, counted from 1.")
    limit: Number = Field(None, ge=1, description="How many lines to read.")


class ReadTool:
    """Reads a text file from a given line, within limits."""

    name = "read"
    description = "Reads a text file in the workspace. For a long file, read on with offset."
    parameters = ReadArguments

    def __init__(self, *, max_bytes: int = 48_000, max_lines: int = 2_000) -> None:
        """The limits of one call: less than the toolbox's, so that the next call can continue where this one ends."""
        self._max_bytes = max_bytes
        self._max_lines = max_lines

    async def run(self, arguments: ReadArguments, context: ToolContext) -> ToolResult:
        """Reads in a thread.

        Raises:
            ToolError: no such file, outside the workspace, not a text file, or no such line.
        """
        return await context.files.looking.run(partial(self._read, context.files, arguments))

    def _read(self, files: Files, arguments: ReadArguments) -> ToolResult:
        with files.open(arguments.path) as file:
            return self._read_piece(file, os.fstat(file.fileno()).st_size, arguments)

    def _read_piece(self, file: BinaryIO, size: int, arguments: ReadArguments) -> ToolResult:
        first = arguments.offset or 1
        start = file.read(CHUNK_BYTES)
        _refuse_other_encodings(start)
        data = _without_lines(file, start, first - 1)
        begins_at = file.tell() - len(data)
        data += file.read(max(self._max_bytes + 1 - len(data), 0))
        max_lines = min(arguments.limit or self._max_lines, self._max_lines)
        shown, lines = _first_lines(data[: self._max_bytes], len(data) > self._max_bytes, max_lines)
        if b"\0" in shown:
            raise ToolError("the file is binary", result_bytes=size)
        more = len(data) > len(shown)
        cut = more and (lines != arguments.limit or not shown.endswith(b"\n"))
        return ToolResult(
            text=_decoded(shown, more=more) + _notice(first, lines, shown, more=more),
            result_bytes=max(size - begins_at, len(shown)) if cut else len(shown),
            result_truncated=cut,
        )


def _refuse_other_encodings(start: bytes) -> None:
    for mark, encoding in OTHER_ENCODINGS.items():
        if start.startswith(mark):
            raise ToolError(f"the file is {encoding} text, and only UTF-8 can be read; convert it first")
    if b"\0" in start:
        raise ToolError("the file is binary")


def _without_lines(file: BinaryIO, chunk: bytes, skip: int) -> bytes:
    """The rest of the chunk in which the first `skip` lines end; `chunk` is what was already read of the file."""
    newlines = scanned = 0
    last = b"\n"
    while chunk:
        found = chunk.count(b"\n")
        if newlines + found >= skip:
            position = 0
            for _ in range(skip - newlines):
                position = chunk.index(b"\n", position) + 1
            if position < len(chunk) or skip == 0:
                return chunk[position:]
        newlines, last = newlines + found, chunk[-1:]
        scanned += len(chunk)
        if scanned > MAX_SCANNED_BYTES:
            raise ToolError(f"the line begins after the first {MAX_SCANNED_BYTES} bytes, further than this tool looks")
        chunk = file.read(CHUNK_BYTES)
        if chunk and newlines == skip:
            return chunk
    if skip:
        lines = newlines + (last != b"\n")
        raise ToolError(f"the file has only {lines} lines")
    return b""


def _first_lines(data: bytes, cut: bool, max_lines: int) -> tuple[bytes, int]:
    """Up to max_lines whole lines, and their number; a first line that was `cut` counts as it is."""
    position = lines = 0
    while lines < max_lines and position < len(data):
        newline = data.find(b"\n", position)
        if newline < 0:
            if cut and lines:
                break
            return data, lines + 1
        position, lines = newline + 1, lines + 1
    return data[:position], lines


def _decoded(data: bytes, *, more: bool) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if more and error.reason == "unexpected end of data":
            return data[: error.start].decode()
        return data.decode(errors="replace") + "\n[The file is not UTF-8 throughout; what is not is shown as \ufffd.]"


def _notice(first: int, lines: int, shown: bytes, *, more: bool) -> str:
    if not shown:
        return "[The file is empty.]"
    if not more:
        return ""
    last = first + lines - 1
    if not shown.endswith(b"\n"):
        return f"\n[Line {last} is longer than this tool shows; its rest is left out.]"
    return f"\n[Lines {first} to {last}; the file goes on: read on with offset {last + 1}.]"


KIND = ToolKind(ReadTool)
