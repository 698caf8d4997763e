"""The tool `edit`: an exact replacement in a file in the workspace."""

from functools import partial
from typing import BinaryIO

from pydantic import Field

from gateway_svc.tools import ToolContext, ToolError, ToolKind
from gateway_svc.tools.arguments import Arguments, Flag, PathText
from gateway_svc.tools.files import Files
from recording.calls import ToolResult


class EditArguments(Arguments):
    """The arguments of `edit`."""

    path: PathText = Field(description="The file: relative to the workspace, or absolute.")
    old_string: str = Field(
        min_length=1, description="The text to replace, exactly as the file has it, spaces included."
    )
    new_string: str = Field(description="The text to put in its place.")
    replace_all: Flag = Field(None, description="Replace every place; otherwise there must be just one.")


class EditTool:
    """Replaces text in a file."""

    name = "edit"
    description = "Replaces text in a file in the workspace. old_string must match exactly, and only one place."
    parameters = EditArguments

    def __init__(self, *, max_bytes: int = 2_000_000) -> None:
        """`max_bytes` is the largest file that a call may read or write."""
        self._max_bytes = max_bytes

    async def run(self, arguments: EditArguments, context: ToolContext) -> ToolResult:
        """Edits in a thread.

        Raises:
            ToolError: outside the workspace, not a UTF-8 file, too large, or not the right number of places.
        """
        if arguments.old_string == arguments.new_string:
            raise ToolError("old_string and new_string are the same")
        return await context.files.changing.run(partial(self._edit, context.files, arguments))

    def _edit(self, files: Files, arguments: EditArguments) -> ToolResult:
        old, new = arguments.old_string.encode(), arguments.new_string.encode()
        places = 0

        def change(file: BinaryIO) -> bytes:
            nonlocal places
            content = self._read(file)
            places = content.count(old)
            _refuse_number(places, content, all_of_them=bool(arguments.replace_all))
            if len(content) + places * (len(new) - len(old)) > self._max_bytes:
                raise ToolError(f"the file would be larger than {self._max_bytes} bytes")
            return content.replace(old, new)

        files.change(arguments.path, change)
        text = f"Replaced {places} {'place' if places == 1 else 'places'}."
        return ToolResult(text=text, result_bytes=len(text))

    def _read(self, file: BinaryIO) -> bytes:
        content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise ToolError(f"the file is larger than {self._max_bytes} bytes")
        if b"\0" in content:
            raise ToolError("the file is binary")
        return content


def _refuse_number(places: int, content: bytes, *, all_of_them: bool) -> None:
    if places == 0:
        hint = "; the file's lines end in CR LF" if b"\r\n" in content else ""
        raise ToolError(f"old_string is not in the file{hint}")
    if places > 1 and not all_of_them:
        raise ToolError(f"old_string is in {places} places: add more of its surroundings, or set replace_all")


KIND = ToolKind(EditTool)
