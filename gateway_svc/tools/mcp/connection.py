"""One MCP server: connected in a task of its own, its tools listed, its calls made; connected again when it dies."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from mcp.client import Client, IncomingMessage
from mcp.client._transport import TransportStreams
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT, CallToolResult, Implementation, ToolListChangedNotification

from gateway_svc.tools import ToolError
from gateway_svc.tools.mcp import results
from gateway_svc.tools.mcp.http import reach_server
from gateway_svc.tools.mcp.listing import McpTool, list_tools, shown
from gateway_svc.tools.mcp.process import environment, run_server
from gateway_svc.tools.mcp.settings import ServerSettings
from recording.calls import ToolResult

CONNECT_SECONDS = 30.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 60.0
STEADY_SECONDS = 30.0
"""A connection that lasted so long makes the next retry quick again."""
WAIT_SECONDS = 10.0
"""How long a call waits for a server that is being connected again."""
CANCEL_SECONDS = 1.0
LIST_SECONDS = 10.0
"""A server that does not say within this which tools it has is started again."""

log = structlog.get_logger(__name__)


class McpServer:
    """A server of the settings file. Its tools stay known while it is away, and their calls say so."""

    def __init__(self, name: str, settings: ServerSettings, folder: Path, on_change: Callable[[], None]) -> None:
        """`folder` is where its program runs unless the settings say; `on_change` is called when its tools change."""
        self.name = name
        self.settings = settings
        self.tools: dict[str, McpTool] = {}
        self.tried = asyncio.Event()
        """Set once it was connected, or could not be."""
        self._folder = settings.cwd or folder
        self._on_change = on_change
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._relist = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to connect."""
        self._task = asyncio.create_task(self._serve(), name=f"mcp {self.name}")

    async def aclose(self) -> None:
        """Ends the connection, and the program."""
        self._closing.set()
        if self._task:
            await asyncio.wait([self._task], timeout=CONNECT_SECONDS / 3)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """Calls a tool by the server's own name for it.

        Raises:
            ToolError: the server is away, died, did not answer in time, or refused.
        """
        client, lost = await self._connected(), self._lost
        seconds = self.settings.timeout_seconds
        calling = asyncio.create_task(client.call_tool(tool, arguments, read_timeout_seconds=seconds))
        dying = asyncio.create_task(lost.wait())
        try:
            await asyncio.wait([calling, dying], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return self._result(calling, lost)
            if dying.done():
                raise results.died(self.name)
            self._relist.set()  # which tells whether it is alive
            raise results.timed_out(self.name, seconds)
        finally:
            dying.cancel()
            if not calling.done():
                calling.cancel()  # the server is told
                await asyncio.wait([calling], timeout=CANCEL_SECONDS)

    def _result(self, calling: "asyncio.Task[CallToolResult]", lost: asyncio.Event) -> ToolResult:
        try:
            answer = calling.result()
        except MCPError as error:
            if self.settings.url:
                self._lose(lost)  # its session may be gone: a new one costs little
            if error.code == CONNECTION_CLOSED:
                self._lose(lost)
                raise results.died(self.name) from None
            if error.code == REQUEST_TIMEOUT:
                self._relist.set()
                raise results.timed_out(self.name, self.settings.timeout_seconds) from None
            raise results.refused(self.name, error.code, error.message) from None
        except (
            ValueError,
            RuntimeError,
        ) as error:  # its library's for what is not the protocol's, or the tool's schema's
            log.warning("mcp.answer_unreadable", server=self.name, error=type(error).__name__)
            raise results.unreadable(self.name) from None
        except Exception as error:  # noqa: BLE001 - whatever its library raises, the call has failed and the server is suspect
            self._lose(lost)
            log.warning("mcp.call_failed", server=self.name, error=type(error).__name__)
            raise results.died(self.name) from None
        return results.tool_result(answer)

    async def _connected(self) -> Client:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(WAIT_SECONDS, self.settings.timeout_seconds)):
                await self._up.wait()
        if self._client is None:
            raise ToolError(f"the MCP server {self.name} is not running; it is being started again")
        return self._client

    async def _serve(self) -> None:
        wait_s = FIRST_RETRY_SECONDS
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                await self._serve_once(asyncio.Event())
            except Exception as error:  # noqa: BLE001 - a server that fails never ends the gateway
                log.warning("mcp.failed", server=self.name, reason=_reason(error))
            finally:
                self._lose(self._lost)
                self.tried.set()
            if time.monotonic() - started > STEADY_SECONDS:
                wait_s = FIRST_RETRY_SECONDS
            if not self._closing.is_set():
                log.info("mcp.connecting_again", server=self.name, wait_s=wait_s)
                await _first_of([self._closing], wait_s * (1 + random.random()) / 2)  # noqa: S311 - it spreads retries
            wait_s = min(wait_s * 2, LAST_RETRY_SECONDS)

    async def _serve_once(self, lost: asyncio.Event) -> None:
        """Connects, and stays connected until the connection is lost or nobody wants it any more."""
        self._lost = lost
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_SECONDS):
                client = await stack.enter_async_context(
                    Client(
                        self._transport(lost),
                        client_info=Implementation(name="onrecord", version="1"),
                        message_handler=self._hear,
                        cache=None,
                    )
                )
                await self._list(client)
            self._client = client
            self._up.set()
            self.tried.set()
            log.info("mcp.connected", server=self.name, tools=len(self.tools))
            listening = asyncio.create_task(self._listen(client))
            stack.callback(listening.cancel)
            while not (self._closing.is_set() or lost.is_set()):
                await _first_of([self._closing, lost, self._relist])
                if self._relist.is_set() and not lost.is_set():
                    async with asyncio.timeout(LIST_SECONDS):
                        await self._list(client)
            if lost.is_set():
                log.warning("mcp.lost", server=self.name)
            self._lose(lost)

    def _lose(self, lost: asyncio.Event) -> None:
        """A connection serves no more: calls under way end, and those that come wait for the next one."""
        lost.set()
        if lost is self._lost:
            self._client = None
            self._up.clear()

    def _transport(self, lost: asyncio.Event) -> AbstractAsyncContextManager[TransportStreams]:
        settings = self.settings
        if settings.url:
            return reach_server(settings.url, settings.headers, settings.timeout_seconds)
        argv = [settings.command, *settings.args]
        return run_server(argv, environment(os.environ, settings.env), self._folder, partial(self._lose, lost))

    async def _listen(self, client: Client) -> None:
        """Hears of other tools from servers of the newer protocol, which tell only who asks."""
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._relist.set()
        except Exception as error:  # noqa: BLE001 - an older server, or one that has gone, which is seen elsewhere
            log.debug("mcp.not_listening", server=self.name, reason=_reason(error))

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._relist.set()

    async def _list(self, client: Client) -> None:
        """Asks which tools there are."""
        self._relist.clear()
        tools = await list_tools(client, self.name, self.call)
        settings = self.settings
        if unknown := sorted({*settings.tools, *settings.record} - {name.partition(".")[2] for name in tools}):
            # a policy for a name that is misspelt holds for nothing
            log.warning("mcp.settings_name_unknown_tools", server=self.name, tools=unknown)
        if shown(tools) != shown(self.tools):
            self.tools = tools
            self._on_change()


async def _first_of(events: list[asyncio.Event], seconds: float | None = None) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _reason(error: Exception) -> str:
    """What may be told of an error: its kind, and the system's own words; the rest may be content."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__} {error.code}" if isinstance(error, MCPError) else type(error).__name__
