"""The tools that an MCP server lists, read one by one: only bad ones are left out."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gateway_svc.tools import ToolContext
from gateway_svc.tools.arguments import ArgumentsError
from gateway_svc.tools.mcp.client import METHOD_NOT_FOUND, Client
from gateway_svc.tools.mcp.schemas import Unusable, in_head, renamed, usable
from gateway_svc.tools.mcp.wire import BadStatus, Refusal, Unreadable
from recording.calls import ToolResult
from service_kit.time_slice import TimeSlice

MAX_TOOLS, MAX_PAGES = 128, 16
MAX_DESCRIPTION_CHARACTERS = 8_192
MAX_TOLD = 20
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_./-]{1,90}")

Call = Callable[[str, dict[str, Any]], Awaitable[ToolResult]]
"""Calls a tool by the server's own name for it."""


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool of a server (the RemoteTool protocol)."""

    name: str
    description: str
    schema: dict[str, object]
    call: Callable[[dict[str, Any]], Awaitable[ToolResult]]
    server_names: Mapping[str, str]
    """The server's own names of arguments, by those that models are shown instead."""

    def check(self, arguments: dict[str, Any]) -> None:
        """Checks only that required arguments are there; the server checks the rest."""
        required = self.schema.get("required")
        missing = [name for name in required if name not in arguments] if isinstance(required, list) else []
        if missing:
            # the names are the server's words: for the model, not for the record
            raise ArgumentsError("required arguments are missing", told=f"missing: {', '.join(map(str, missing[:8]))}")

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        return await self.call({self.server_names.get(name, name): value for name, value in arguments.items()})


@dataclass(slots=True)
class Listing:
    """The tools of a server."""

    tools: dict[str, McpTool] = field(default_factory=dict)
    """By full name, `server.tool`."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why tools are not offered, by name, or by position if the name is unusable; the first MAX_TOLD."""
    left_out_count: int = 0
    in_head: dict[str, dict[tuple[str, ...], str]] = field(default_factory=dict)
    """By the server's own name of a tool: see schemas.in_head()."""

    def leave_out(self, name: str, reason: str) -> None:
        """Counts a tool that is not offered, and keeps the reason."""
        self.left_out_count += 1
        if len(self.left_out) < MAX_TOLD:
            self.left_out[name] = reason


async def list_tools(client: Client, server: str, call: Call, seconds: float) -> Listing:
    """Lists the tools of the server of that name; `call` calls one. A server may have none, and no such method.

    Raises:
        ConnectionLost, Refusal, Unreadable, BadStatus, TimeoutError: the server did not list its tools.
    """
    listing, cursor, seen, time_slice = Listing(), None, 0, TimeSlice()
    asked = set[str]()
    for _ in range(MAX_PAGES):
        try:
            page = await client.request("tools/list", {"cursor": cursor} if cursor else {}, seconds)
        except (Refusal, Unreadable, BadStatus) as failure:
            if cursor:
                listing.leave_out(f"{server}.#{seen + 1}", "the rest of the list cannot be read")
            elif not (isinstance(failure, Refusal) and failure.code == METHOD_NOT_FOUND):
                raise
            break
        listed = page.get("tools")
        for entry in listed if isinstance(listed, list) else []:
            seen += 1
            _take(entry, seen, server, call, listing)
            if time_slice.is_over():
                await time_slice.give_way()
        cursor = page.get("nextCursor")
        if not isinstance(cursor, str) or not cursor or cursor in asked:  # some servers name one page for ever
            break
        asked.add(cursor)
    client.in_head = listing.in_head
    return listing


def _take(entry: Any, number: int, server: str, call: Call, listing: Listing) -> None:
    place = f"{server}.#{number}"
    if not isinstance(entry, dict):
        listing.leave_out(place, "no object")
        return
    named = entry.get("name")
    if not isinstance(named, str) or not _TOOL_NAME.fullmatch(named):
        listing.leave_out(place, "name is not one that every provider takes")
        return
    name = f"{server}.{named}"
    if name in listing.tools:
        listing.leave_out(place, "name is listed twice")
    elif len(listing.tools) >= MAX_TOOLS:
        listing.leave_out(name, f"more than {MAX_TOOLS} tools")
    else:
        try:
            schema, names = renamed(usable(entry.get("inputSchema")))
        except Unusable as unusable:
            listing.leave_out(name, str(unusable))
            return
        listing.in_head[named] = dict(in_head(entry["inputSchema"]))
        listing.tools[name] = McpTool(name, _description(entry), schema, partial(call, named), names)


def _description(entry: dict[str, Any]) -> str:
    told = next((entry[key] for key in ("description", "title") if isinstance(entry.get(key), str)), "")
    return told.encode(errors="replace").decode()[:MAX_DESCRIPTION_CHARACTERS]


def shown(tools: dict[str, McpTool]) -> list[tuple[str, str, dict[str, object]]]:
    """What a model sees of the tools, to detect changes."""
    return [(tool.name, tool.description, tool.schema) for tool in tools.values()]
