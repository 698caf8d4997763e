"""Requests to one MCP server over a link, and their answers. Only the link itself knows its state."""

import asyncio
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Protocol

import structlog

from gateway_svc.tools.mcp.wire import BadStatus, Refusal, Unreadable, message_id, messages_of, read_json, refusal_of

CLIENT = {"name": "onrecord", "version": "1"}
HANDSHAKE_VERSION, STATELESS_VERSION = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol"
METHOD_NOT_FOUND = -32601
GREETINGS = frozenset({"initialize", "server/discover"})
"""Requests that are never cancelled, by the protocol."""
PROBE_SECONDS = 5.0
TELL_SECONDS = 60.0
CANCEL_SECONDS = 1.0
LINES_A_PAUSE, FLOOD_PAUSE_SECONDS = 256, 0.005
"""How many lines that answer nothing are read at once, and the pause after them: the writer of a flood waits."""
ANSWERS, ANSWERS_AT_ONCE = 64, 4
"""To requests of a server: how many may wait, beyond which it gets none, and how many are sent at once. Over HTTP each
is a request of its own, which takes a millisecond of work, and a server may ask for any number of them."""
LARGE_NOTICE_BYTES = 65_536
"""A message of this size that answers nothing is not parsed."""
_VERSION = re.compile(r"[\w.-]{1,32}", re.ASCII)

log = structlog.get_logger(__name__)


class ConnectionLost(Exception):
    """The link to the server has ended, or there is none."""

    def __init__(self, *, begun: bool = True) -> None:
        super().__init__("the connection was lost")
        self.begun = begun
        """Whether the request may have reached the server."""


class Link(Protocol):
    """How messages reach a server; its messages go to the client's take()."""

    async def send(self, message: dict[str, Any]) -> None:
        """Sends a message. Over HTTP, it returns when the answer has been processed.

        Raises:
            ConnectionLost: the server cannot be reached.
        """
        ...


class Client:
    """The client of one server's tools. It may have several requests at once."""

    def __init__(self, server: str, heard: Callable[[str], None]) -> None:
        """`heard` is called with the method of each notification from the server."""
        self.lost = asyncio.Event()
        """Set once the link is lost."""
        self.stateless = False
        """Whether the server speaks the protocol without a handshake, in which each request is self-contained."""
        self.protocol = HANDSHAKE_VERSION
        """The version of the protocol that a handshake has agreed on."""
        self.in_head: Mapping[str, Mapping[tuple[str, ...], str]] = {}
        """By tool: which of its arguments the server wants in a head of HTTP too."""
        self.version = ""
        """What the server says that its version is; empty when it does not."""
        self._server = server
        self._heard = heard
        self._link: Link | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._listening: set[int] = set()
        """Requests that have not been answered for hours."""
        self._last_id = 0
        self._unanswering = 0
        """How many lines answered nothing since the last pause."""
        self._stray, self._told_at = 0, -TELL_SECONDS
        self._answering: set[asyncio.Task[None]] = set()
        self._answers_at_once = asyncio.Semaphore(ANSWERS_AT_ONCE)

    async def open(self, link: Link, seconds: float, *, probe: bool = True) -> None:
        """Opens the protocol: without a handshake if `probe` is set and the server can do that, else with one.

        Raises:
            ConnectionLost, Refusal, Unreadable, BadStatus, TimeoutError: no MCP server, or no answer in time.
        """
        self._link = link
        if probe and await self._discovers(min(PROBE_SECONDS, seconds)):
            return
        hello = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": CLIENT}
        try:
            greeting = await self.request("initialize", hello, seconds)
        except Refusal:  # it no longer has a handshake, and answered the probe too late
            if not await self._discovers(seconds):
                raise
        else:
            self._take_version(greeting)
            agreed = greeting.get("protocolVersion")
            if isinstance(agreed, str) and _VERSION.fullmatch(agreed):
                self.protocol = agreed
            await self.notify("notifications/initialized")

    async def _discovers(self, seconds: float) -> bool:
        """Whether the server speaks the protocol without a handshake."""
        self.stateless = True
        with suppress(Refusal, Unreadable, BadStatus, TimeoutError):
            discovered = await self.request("server/discover", {}, seconds)
            versions = discovered.get("supportedVersions")
            self._take_version(discovered)
            if isinstance(versions, list) and STATELESS_VERSION in versions:
                return True
        self.stateless = False
        return False

    def _take_version(self, greeting: Mapping[str, Any]) -> None:
        about = greeting.get("serverInfo")
        version = about.get("version") if isinstance(about, dict) else None
        self.version = version if isinstance(version, str) else ""

    async def request(self, method: str, params: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The result of a request.

        Raises:
            Refusal: the server's own error.
            Unreadable: its answer is malformed.
            BadStatus: it answered with a status of HTTP alone.
            ConnectionLost: the link ended before the answer.
            TimeoutError: no answer came in time; the request was cancelled.
        """
        self._last_id += 1
        number, answer = self._last_id, asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        if method == "subscriptions/listen":
            self._listening.add(number)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": self._stamped(params)}
        sending = asyncio.create_task(self._send(message, answer))
        lost = asyncio.create_task(self.lost.wait())
        try:
            await asyncio.wait([answer, lost], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                result = answer.result()
                if not isinstance(result, dict):
                    raise Unreadable
                return result
            if lost.done():
                raise ConnectionLost
            raise TimeoutError
        finally:
            del self._asked[number]
            self._listening.discard(number)
            lost.cancel()
            if answer.done():
                answer.exception()  # nobody else may have asked for it
            else:
                answer.cancel()
                if not self.lost.is_set() and method not in GREETINGS:
                    await self._cancel(number)
            sending.cancel()

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Sends a notification.

        Raises:
            ConnectionLost: the link has ended.
        """
        if self._link is None or self.lost.is_set():
            raise ConnectionLost(begun=False)
        await self._link.send({"jsonrpc": "2.0", "method": method, "params": self._stamped(params or {})})

    async def take(self, line: bytes, asked: Collection[int] | None = None) -> bool:
        """Processes a line from the server; returns whether it was an answer. A flood of others is read slowly.

        `asked` are the requests that an error without an id may answer; None: any.
        """
        if answered := await self._answers(line, asked):
            return answered
        self._unanswering += 1
        if self._unanswering >= LINES_A_PAUSE:
            self._unanswering = 0
            await asyncio.sleep(FLOOD_PAUSE_SECONDS)
        return False

    async def _answers(self, line: bytes, asked: Collection[int] | None) -> bool:
        if len(line) > LARGE_NOTICE_BYTES and b'"id"' not in line[:4096] + line[-4096:]:
            self._count_stray()
            return False
        answered = False
        try:
            for message in messages_of(await read_json(line)):
                answered |= self._take(message, asked)
        except Unreadable as unreadable:
            number = next((number for number in unreadable.ids if number in self._asked), None)
            if number is None:
                self._count_stray()
            else:
                self._settle(number, error=unreadable)
                answered = True
        return answered

    def _take(self, message: dict[str, Any], asked: Collection[int] | None) -> bool:
        method, number = message.get("method"), message_id(message)
        answers = number in self._asked and ("result" in message or "error" in message)
        if isinstance(method, str) and not answers:
            if "id" in message:
                self._answer_later(message["id"], method)
            else:
                self._heard(method)
            return False
        if number is None and "error" in message:  # the server could not read its id
            waiting = self._asked.keys() - self._listening if asked is None else self._asked.keys() & asked
            number = next(iter(waiting)) if len(waiting) == 1 else None
        if number not in self._asked:
            self._count_stray()
            return False
        # JSON-RPC 1.0 sends both, one of them null
        if message.get("error") is not None:
            self._settle(number, error=refusal_of(message["error"]))
        elif "result" in message:
            self._settle(number, result=message["result"])
        else:
            self._settle(number, error=Unreadable())
        return True

    def _settle(self, number: int, *, result: Any = None, error: Exception | None = None) -> None:
        answer = self._asked[number]
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    async def _send(self, message: dict[str, Any], answer: "asyncio.Future[Any]") -> None:
        try:
            if self._link is None or self.lost.is_set():
                raise ConnectionLost(begun=False)
            await self._link.send(message)
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer is told, also of what nobody foresaw
            if not answer.done():
                answer.set_exception(error)

    async def _cancel(self, number: int) -> None:
        with suppress(ConnectionLost, Refusal, Unreadable, BadStatus, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.notify("notifications/cancelled", {"requestId": number, "reason": "cancelled"})

    def _answer_later(self, number: Any, method: str) -> None:
        """Answers a server's ping. All other requests of servers are refused."""
        answer: dict[str, Any] = {"result": {}}
        if method != "ping":
            answer = {"error": {"code": METHOD_NOT_FOUND, "message": "not offered"}}
        if len(self._answering) < ANSWERS:
            task = asyncio.create_task(self._answer({"jsonrpc": "2.0", "id": number, **answer}))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, message: dict[str, Any]) -> None:
        async with self._answers_at_once:
            if self._link is not None:
                with suppress(ConnectionLost, Refusal, Unreadable, BadStatus):
                    await self._link.send(message)

    def _stamped(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if not self.stateless:
            return dict(params)
        about = {"protocolVersion": STATELESS_VERSION, "clientInfo": CLIENT, "clientCapabilities": {}}
        return {**params, "_meta": {f"{META}/{name}": value for name, value in about.items()}}

    def _count_stray(self) -> None:
        """Counts what is no message, or answers nothing. Only the count is logged, once a minute: it may be content."""
        self._stray += 1
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            log.warning("mcp.messages_skipped", server=self._server, messages=self._stray)
            self._stray, self._told_at = 0, time.monotonic()
