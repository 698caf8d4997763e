"""The tools that an MCP server lists, and what of them is taken."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from mcp.client import Client
from mcp_types import Tool as ListedTool

from gateway_svc.tools import ToolContext
from gateway_svc.tools.arguments import ArgumentsError
from recording.calls import ToolResult

MAX_TOOLS, MAX_PAGES = 128, 16
MAX_DESCRIPTION_CHARACTERS, MAX_SCHEMA_BYTES = 8_192, 65_536
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_./-]{1,90}")

log = structlog.get_logger(__name__)

Call = Callable[[str, dict[str, Any]], Awaitable[ToolResult]]
"""Calls a tool by the server's own name for it."""


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool of a server (the RemoteTool protocol)."""

    name: str
    description: str
    schema: dict[str, object]
    call: Callable[[dict[str, Any]], Awaitable[ToolResult]]

    def check(self, arguments: dict[str, Any]) -> None:
        """See RemoteTool. The server checks the rest itself."""
        required = self.schema.get("required")
        missing = [field for field in required if field not in arguments] if isinstance(required, list) else []
        if missing:
            raise ArgumentsError(f"missing: {', '.join(map(str, missing[:8]))}")

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """See RemoteTool."""
        return await self.call(arguments)


async def list_tools(client: Client, server: str, call: Call) -> dict[str, McpTool]:
    """The tools of the server of that name, by their names in full; `call` is how they are called.

    Raises:
        MCPError, ValidationError: the server does not answer as it should.
    """
    tools: dict[str, McpTool] = {}
    cursor = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for listed in page.tools:
            _take(listed, server, call, tools)
        cursor = page.next_cursor
        if not cursor:
            break
    return tools


def _take(listed: ListedTool, server: str, call: Call, tools: dict[str, McpTool]) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {}, **listed.input_schema}
    if not _TOOL_NAME.fullmatch(listed.name):
        reason = "name"
    elif len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
        reason = "schema too large"
    elif len(tools) >= MAX_TOOLS:
        reason = "too many"
    else:
        name = f"{server}.{listed.name}"
        description = (listed.description or listed.title or "")[:MAX_DESCRIPTION_CHARACTERS]
        tools[name] = McpTool(name, description, schema, partial(call, listed.name))
        return
    log.warning("mcp.tool_left_out", server=server, reason=reason)


def shown(tools: dict[str, McpTool]) -> list[tuple[str, str, dict[str, object]]]:
    """All that a model sees of them, for telling whether they have changed."""
    return [(tool.name, tool.description, tool.schema) for tool in tools.values()]
