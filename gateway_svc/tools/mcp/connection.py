"""One MCP server: its own task connects, lists its tools, makes its calls, and reconnects when it dies."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import structlog

from gateway_svc.tools.mcp import results
from gateway_svc.tools.mcp.client import Client, ConnectionLost, Link
from gateway_svc.tools.mcp.http import reach_server
from gateway_svc.tools.mcp.listing import Listing, list_tools, shown
from gateway_svc.tools.mcp.process import environment, run_server
from gateway_svc.tools.mcp.settings import ServerSettings
from gateway_svc.tools.mcp.wire import BadStatus, Refusal, Unreadable
from recording.calls import ToolResult

MAX_START_SECONDS = 600.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 60.0
STEADY_SECONDS = 30.0
"""A connection that lasted this long resets the backoff."""
WAIT_SECONDS = 10.0
"""How long a call waits for a server that is reconnecting."""
LIST_SECONDS = 10.0
"""A server that does not list its tools within this time is restarted."""
LIST_APART_SECONDS = 1.0
LISTEN_SECONDS, LISTEN_AGAIN_SECONDS = 3600.0, 10.0
CLOSE_SECONDS = 10.0

log = structlog.get_logger(__name__)


class McpServer:
    """A server of the settings file. While it is away its tools stay known, and calls fail with that reason."""

    def __init__(self, name: str, settings: ServerSettings, folder: Path, on_change: Callable[[], None]) -> None:
        """`folder` is its program's default working directory; `on_change` is called when its tools change."""
        self.name = name
        self.settings = settings
        self.listing = Listing()
        self.tried = asyncio.Event()
        """Set after the first attempt to connect."""
        self._folder = settings.cwd or folder
        self._on_change = on_change
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._probes = True
        """Whether the next attempt probes for a server without a handshake first: some servers die of that."""
        self._relist = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it is connected."""
        return self._up.is_set()

    @property
    def version(self) -> str:
        """What the connected server says that its version is; empty when it does not."""
        return self._client.version if self._client else ""

    def start(self) -> None:
        """Starts connecting."""
        self._task = asyncio.create_task(self._serve(), name=f"mcp {self.name}")

    async def aclose(self) -> None:
        """Ends the connection, and the program."""
        self._closing.set()
        if self._task:
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """Calls a tool by the server's own name for it; once more if the first try cannot have reached it.

        Raises:
            ToolError: the server is away, died, did not answer in time, or refused.
        """
        try:
            return await self._call(tool, arguments)
        except ConnectionLost:
            with suppress(ConnectionLost):
                return await self._call(tool, arguments)
        raise results.away(self.name)

    async def _call(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """One try. Raises ConnectionLost if the call has not begun; else as call()."""
        client, seconds = await self._connected(), self.settings.timeout_seconds
        try:
            answer = await client.request("tools/call", {"name": tool, "arguments": arguments}, seconds)
        except Refusal as refusal:
            raise results.refused(self.name, refusal) from None
        except Unreadable:
            log.warning("mcp.answer_unreadable", server=self.name)
            raise results.unreadable(self.name) from None
        except BadStatus as status:
            raise results.without_answer(self.name, status) from None
        except TimeoutError:
            self._relist.set()  # which tells whether it is alive
            raise results.timed_out(self.name, seconds) from None
        except ConnectionLost as lost:
            client.lost.set()
            if not lost.begun:
                raise
            raise results.died(self.name) from None
        return results.tool_result(answer)

    async def _connected(self) -> Client:
        if self._client and self._client.lost.is_set():  # which its task has not seen yet
            self._lose()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(WAIT_SECONDS, self.settings.timeout_seconds)):
                await self._up.wait()
        if self._client is None:
            raise results.away(self.name)
        return self._client

    async def _serve(self) -> None:
        wait_s, start_s = FIRST_RETRY_SECONDS, self.settings.start_seconds
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                await self._serve_once(start_s)
            except Exception as error:  # noqa: BLE001 - a server that fails never ends the gateway
                log.warning("mcp.failed", server=self.name, reason=_reason(error))
            finally:
                self._lose()
                self.tried.set()
            if time.monotonic() - started > start_s + STEADY_SECONDS:
                wait_s, start_s = FIRST_RETRY_SECONDS, self.settings.start_seconds
            if not self._closing.is_set():
                log.info("mcp.connecting_again", server=self.name, wait_s=wait_s)
                await _first_of([self._closing], wait_s * (1 + random.random()) / 2)  # noqa: S311 - it spreads retries
            wait_s, start_s = min(wait_s * 2, LAST_RETRY_SECONDS), min(start_s * 2, MAX_START_SECONDS)

    async def _serve_once(self, start_seconds: float) -> None:
        """Connects, and stays connected until the connection is lost or closed."""
        client = Client(self.name, self._hear)
        async with AsyncExitStack() as stack:
            opening = asyncio.create_task(self._open(client, stack, start_seconds))
            closing = asyncio.create_task(self._closing.wait())
            await asyncio.wait([opening, closing], return_when=asyncio.FIRST_COMPLETED)
            closing.cancel()
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
                return
            await opening
            self._client = client
            self._up.set()
            self.tried.set()
            log.info("mcp.connected", server=self.name, tools=len(self.listing.tools))
            while not (self._closing.is_set() or client.lost.is_set()):
                await _first_of([self._closing, client.lost, self._relist])
                if self._relist.is_set() and not client.lost.is_set():
                    await self._list(client)
                    await _first_of([self._closing, client.lost], LIST_APART_SECONDS)
            if client.lost.is_set():
                log.warning("mcp.lost", server=self.name)
            self._lose()

    def _lose(self) -> None:
        """Makes new calls wait for the next connection."""
        self._client = None
        self._up.clear()

    async def _open(self, client: Client, stack: AsyncExitStack, seconds: float) -> None:
        link = await stack.enter_async_context(self._link(client))
        self._probes, probe = not self._probes, self._probes
        await client.open(link, seconds, probe=probe)
        self._probes = probe
        await self._list(client)
        listening = asyncio.create_task(self._listen(client, link), name=f"mcp {self.name} listens")
        stack.callback(listening.cancel)

    def _link(self, client: Client) -> AbstractAsyncContextManager[Link]:
        settings = self.settings
        if settings.url:
            return reach_server(settings.url, settings.headers, settings.timeout_seconds, client)
        argv = [settings.command, *settings.args]
        return run_server(self.name, argv, environment(os.environ, settings.env), self._folder, client)

    async def _listen(self, client: Client, link: Link) -> None:
        """Listens for changed tools at servers that announce them only on request."""
        while client.stateless:
            with suppress(Refusal, Unreadable, BadStatus, TimeoutError, ConnectionLost):
                await client.request(
                    "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, LISTEN_SECONDS
                )
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)
        if listen := getattr(link, "listen", None):
            await listen()

    def _hear(self, method: str) -> None:
        if method == "notifications/tools/list_changed":
            self._relist.set()

    async def _list(self, client: Client) -> None:
        """Lists the server's tools."""
        self._relist.clear()
        listing = await list_tools(client, self.name, self.call, LIST_SECONDS)
        settings = self.settings
        if unknown := sorted({*settings.tools, *settings.record} - {name.partition(".")[2] for name in listing.tools}):
            # a policy for a misspelt name has no effect
            log.warning("mcp.settings_name_unknown_tools", server=self.name, tools=unknown)
        if listing.left_out != self.listing.left_out and listing.left_out:
            log.warning("mcp.tools_left_out", server=self.name, count=listing.left_out_count, reasons=listing.left_out)
        changed = shown(listing.tools) != shown(self.listing.tools)
        self.listing = listing
        if changed:
            self._on_change()


async def _first_of(events: list[asyncio.Event], seconds: float | None = None) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _reason(error: Exception) -> str:
    """The loggable part of an error: its type and the system's own words; the rest may be content."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, BadStatus):
        return f"the server {error}"
    if isinstance(error, Refusal):
        return f"the server refused ({error.name})"
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
