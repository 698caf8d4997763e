"""A tool as somebody adds one: this file, put into gateway_svc/tools, and nothing else."""

import asyncio

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.tools import ToolContext, ToolKind
from gateway_svc.tools.arguments import Arguments, Flag, PathText
from recording.calls import ToolResult
from service_kit.settings import Settings


class TallyArguments(Arguments):
    """The arguments of `tally`."""

    path: PathText = Field(description="The folder to count in.")
    hidden: Flag = Field(None, description="Count hidden files too.")
    remark: str = Field("", description="Whatever the model thinks.")


class TallyTool:
    """Counts the files in a folder."""

    name = "tally"
    description = "Counts the files in a folder, and their bytes."
    parameters = TallyArguments

    def __init__(self, *, unit: str) -> None:
        self._unit = unit

    async def run(self, arguments: TallyArguments, context: ToolContext) -> ToolResult:
        """Counts."""
        names = await asyncio.to_thread(context.files.list, arguments.path)
        names = [name for name in names if arguments.hidden or not name.startswith(".")]
        size = sum(context.files.stat(f"{arguments.path}/{name}").st_size for name in names)
        return ToolResult(f"{len(names)} files, {size} {self._unit}")


class TallySettings(Settings):
    """What a deployment chooses for `tally`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_TALLY_")

    unit: str = "bytes"


KIND = ToolKind(TallyTool, lambda settings, _: TallyTool(unit=settings.unit), TallySettings)
