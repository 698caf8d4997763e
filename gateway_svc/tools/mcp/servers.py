"""All MCP servers of a deployment, and the tools that they offer together (the RemoteTools protocol)."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from gateway_svc.tools import RemoteTool
from gateway_svc.tools.mcp.connection import McpServer
from gateway_svc.tools.mcp.listing import McpTool
from gateway_svc.tools.mcp.settings import ServerSettings
from gateway_svc.tools.toolbox import Policy

START_SECONDS = 10.0
"""How long the start of the gateway waits for its servers; one that is slower offers its tools later."""


class McpServers:
    """The servers of the settings file."""

    def __init__(self, servers: Mapping[str, ServerSettings], folder: Path) -> None:
        """Makes a folder for each server under `folder`, where its program runs.

        Not the workspace: Python, npx and others load code from the folder that they run in, and a model writes there.

        Raises:
            OSError: a folder cannot be made.
        """
        _silence()
        self.revision = 1
        self._servers = {
            name: McpServer(name, settings, folder / name, self._changed) for name, settings in servers.items()
        }
        for name in servers:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tools: dict[str, McpTool] = {}

    async def start(self) -> None:
        """Connects to all servers, and waits until each was connected or could not be, but not for long."""
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
        """See RemoteTools."""
        return self._tools

    @property
    def names(self) -> list[str]:
        """The servers' names, each the first part of its tools' names."""
        return list(self._servers)

    def policy(self, name: str) -> Policy:
        """See RemoteTools. The file's word on the tool, or else on its server."""
        server, _, tool = name.partition(".")
        settings = self._servers[server].settings
        return settings.tools.get(tool, settings.policy)

    def _changed(self) -> None:
        self._tools = {name: tool for server in self._servers.values() for name, tool in server.tools.items()}
        self.revision += 1


def _silence() -> None:
    """The package logs what servers write, which may be content; what matters of it is logged by us."""
    logger = logging.getLogger("mcp")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
