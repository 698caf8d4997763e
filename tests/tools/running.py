"""Runs one tool as the agent loop does: through a toolbox, from JSON text."""

import asyncio
import json
from pathlib import Path

from gateway_svc.tools import Tool, ToolContext
from gateway_svc.tools.files import Files
from gateway_svc.tools.toolbox import Toolbox
from recording.calls import ToolCall, ToolResult


async def run(tool: Tool, workspace: Path, **arguments: object) -> ToolResult:
    """The result of a call of the tool with these arguments."""
    return await run_text(tool, workspace, json.dumps(arguments))


async def run_all(tool: Tool, workspace: Path, *calls: dict[str, object]) -> list[ToolResult]:
    """The results of calls that run side by side, as those of one step do."""
    toolbox = Toolbox([tool])
    with Files(workspace) as files:
        made = [ToolCall(f"row-{number}", "", tool.name, json.dumps(call)) for number, call in enumerate(calls)]
        return await asyncio.gather(*(toolbox.run(call, ToolContext(files)) for call in made))


async def run_text(tool: Tool, workspace: Path, arguments: str) -> ToolResult:
    """The result of a call of the tool with arguments as a model may write them."""
    call = ToolCall(id="row-1", provider_call_id="call-1", name=tool.name, arguments=arguments)
    with Files(workspace) as files:
        return await Toolbox([tool]).run(call, ToolContext(files))
