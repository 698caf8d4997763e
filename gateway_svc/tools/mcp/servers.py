"""All MCP servers of a deployment, and the tools that they offer together (the RemoteTools protocol)."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway_svc.tools import RemoteTool
from gateway_svc.tools.mcp.connection import McpServer
from gateway_svc.tools.mcp.listing import McpTool
from gateway_svc.tools.mcp.settings import ServerSettings
from gateway_svc.tools.ruling import Policy

MAX_OFFERED = 128
"""The most tools in all, the gateway's own included: providers accept no more in a request."""
START_SECONDS = 10.0
"""How long the gateway's start waits for its servers; slower ones offer their tools later."""


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerState:
    """The state of a server, for people and metrics."""

    name: str
    is_up: bool
    offered: int
    """How many of its tools are offered."""
    left_out: int
    """How many are left out."""


class McpServers:
    """The servers of the settings file."""

    def __init__(self, servers: Mapping[str, ServerSettings], folder: Path) -> None:
        """Creates a folder for each server under `folder`, where its program runs.

        Not the workspace: Python, npx and others load code from their working directory, and models write to the
        workspace.

        Raises:
            OSError: a folder cannot be made.
        """
        self.revision = 1
        self._servers = {
            name: McpServer(name, settings, folder / name, self._changed) for name, settings in servers.items()
        }
        for name in servers:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tools: dict[str, McpTool] = {}
        self._room = MAX_OFFERED
        self._crowded_out: dict[str, str] = {}

    async def start(self) -> None:
        """Connects to all servers, and waits up to a limit for the first attempt of each."""
        tries = []
        for server in self._servers.values():
            server.start()
            tries.append(asyncio.create_task(server.tried.wait()))
        if tries:
            _, late = await asyncio.wait(tries, timeout=START_SECONDS)
            for waiting in late:
                waiting.cancel()

    async def aclose(self) -> None:
        """Ends all connections and programs."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))

    def tools(self) -> Mapping[str, RemoteTool]:
        return self._tools

    def make_room_for(self, others: int) -> None:
        """Sets how many other tools are offered."""
        self._room = max(MAX_OFFERED - others, 0)
        self._changed()

    def left_out(self) -> dict[str, str]:
        """Why tools are not offered, by name: bad ones, and those beyond the limit."""
        reasons = {name: why for server in self._servers.values() for name, why in server.listing.left_out.items()}
        return {**reasons, **self._crowded_out}

    def states(self) -> Iterator[ServerState]:
        """The state of each server."""
        for name, server in self._servers.items():
            offered = sum(tool.startswith(f"{name}.") for tool in self._tools)
            crowded = sum(tool.startswith(f"{name}.") for tool in self._crowded_out)
            yield ServerState(name, server.is_up, offered, server.listing.left_out_count + crowded)

    @property
    def names(self) -> list[str]:
        """The servers' names, each the first part of its tools' names."""
        return list(self._servers)

    def policy(self, name: str) -> Policy:
        """The file's policy for the tool, or else for its server."""
        server, _, tool = name.partition(".")
        settings = self._servers[server].settings
        return settings.tools.get(tool, settings.policy)

    def software(self, name: str) -> tuple[str, str]:
        """The name and the version of the server that has a tool."""
        server, _, _ = name.partition(".")
        return server, self._servers[server].version

    def _changed(self) -> None:
        """Chooses which tools are offered: servers take turns until the limit is reached."""
        listed = {
            name: (place, order, tool)
            for order, server in enumerate(self._servers.values())
            for place, (name, tool) in enumerate(server.listing.tools.items())
        }
        wanted = sorted((name for name in listed if self.policy(name) != "deny"), key=lambda name: listed[name][:2])
        crowded = wanted[self._room :]
        if crowded and len(crowded) != len(self._crowded_out):
            log.warning("mcp.tools_crowded_out", count=len(crowded), offered=self._room, first=crowded[0])
        self._crowded_out = dict.fromkeys(crowded, f"more than {MAX_OFFERED} tools in all")
        self._tools = {name: tool for name, (_, _, tool) in listed.items() if name not in self._crowded_out}
        self.revision += 1
