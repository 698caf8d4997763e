import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway_svc.tools import ToolContext
from gateway_svc.tools.files import Files
from gateway_svc.tools.mcp.servers import McpServers
from gateway_svc.tools.mcp.settings import ServerSettings
from gateway_svc.tools.toolbox import Toolbox
from recording.calls import ToolCall, ToolResult
from tests.support.ports import own_port

# by its path: importing it would import all of the SDK
PROGRAM = str(Path(__file__).parents[1] / "support" / "mcp_server.py")


def of_tests(**more: Any) -> ServerSettings:
    """The tests' own server, as a program."""
    return ServerSettings(command=sys.executable, args=(PROGRAM,), **more)


class Desk:
    """Servers, and a toolbox over them as an agent has it."""

    def __init__(self, servers: McpServers, workspace: Path) -> None:
        self.servers = servers
        self.toolbox = Toolbox([], remote=servers)
        self._context = ToolContext(Files(workspace))

    async def run(self, name: str, arguments: str = "{}") -> ToolResult:
        return await self.toolbox.run(ToolCall("row-1", "call-1", name, arguments), self._context)

    def names(self) -> list[str]:
        return [definition.name for definition in self.toolbox.definitions()]

    async def until(self, condition: Any, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not happen"
            await asyncio.sleep(0.01)


@pytest.fixture
async def open_desk(tmp_path: Path) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def desk(**servers: ServerSettings) -> AsyncIterator[Desk]:
            mcp = McpServers(servers, tmp_path / "mcp")
            await mcp.start()
            try:
                yield Desk(mcp, tmp_path)
            finally:
                await mcp.aclose()

        async def opened(**servers: ServerSettings) -> Desk:
            return await stack.enter_async_context(desk(**servers))

        yield opened


class HttpServer:
    """The tests' own server at an address, which can be killed and started again there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self, *options: str) -> None:
        null, argv = subprocess.DEVNULL, [sys.executable, PROGRAM, "http", str(self.port), *options]
        self.process = subprocess.Popen(argv, stdout=null, stderr=null)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    with own_port() as port:
        server = HttpServer(port)
        yield server
        server.kill()
