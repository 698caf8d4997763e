"""An MCP server at an address: streamable HTTP, without a proxy and without following it to another origin.

Each message is a POST, answered by a JSON body or a stream of events. A server with sessions announces changed tools on
a separate GET, and one that ends a stream ahead of its answer goes on there.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from gateway_svc.http_client import bound_heads, take_head, tls_context
from gateway_svc.tools.mcp.client import STATELESS_VERSION, Client, ConnectionLost
from gateway_svc.tools.mcp.wire import MAX_MESSAGE_BYTES, BadStatus, Unreadable
from service_kit.bounds import EVENTS, PIECES, RESPONSE, Exceeded, Tally
from service_kit.time_slice import TimeSlice

CONNECT_SECONDS = 10.0
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 1.0, 60.0
LEAST_WAIT_SECONDS = 0.1
"""Before a stream is taken up again, whatever the server says."""
REDIRECTS, MAX_REDIRECTS = (307, 308), 3
OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NO_STREAM = 200, 400, 401, 403, 404, 405
EVENT_STREAM = "text/event-stream"
_DATA = b"data:"
_NO_SESSION = re.compile(rb"session|not initialized", re.IGNORECASE)
"""What SDKs say with status 400, in place of 404, of a session that they do not know, as after a restart."""
_PLAIN = re.compile(r"([!-~]([ -~]*[!-~])?)?")
_EVENT_ID = re.compile(rb"[!-~]{1,256}")


@dataclass(slots=True)
class _Place:
    """How far a stream was heard, and how long to wait until it is taken up again there, as its server says."""

    event_id: str = ""
    wait_s: float = FIRST_WAIT_SECONDS

    def note(self, line: bytes) -> None:
        """Takes a line that is no data."""
        name, _, value = line.rstrip(b"\r").partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id" and _EVENT_ID.fullmatch(value):
            self.event_id = value.decode()
        elif name == b"retry" and value.isdigit() and len(value) < 8:
            self.wait_s = max(int(value) / 1000, LEAST_WAIT_SECONDS)


class _Http:
    """The Link to an address."""

    def __init__(self, url: str, http: httpx2.AsyncClient, client: Client) -> None:
        self._url = url
        self._http = http
        self._client = client
        self._session = ""

    async def send(self, message: dict[str, Any]) -> None:
        content = json.dumps(message, ensure_ascii=False).encode(errors="replace")
        try:
            async with self._stream("POST", self._headers(message), content) as response:
                await self._take(response, {message["id"]} if "id" in message and "method" in message else set())
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise ConnectionLost(begun=False) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
            raise ConnectionLost from None

    async def listen(self) -> None:
        """Listens to the notification stream of a server with sessions, as long as it has one."""
        wait_s = FIRST_WAIT_SECONDS
        while True:
            with suppress(httpx2.HTTPError, OSError, Unreadable, ConnectionLost):
                async with self._stream("GET", {**self._headers({}), "accept": EVENT_STREAM}) as heard:
                    if heard.status_code == NO_STREAM or _media(heard) != EVENT_STREAM:
                        return
                    async for event in _events(heard, _Place()):
                        await self._client.take(event, ())
                        wait_s = FIRST_WAIT_SECONDS
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LAST_WAIT_SECONDS)

    async def leave(self) -> None:
        """Ends the session at the server."""
        if self._session:
            with suppress(httpx2.HTTPError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    async with self._stream("DELETE", self._headers({})):
                        pass  # what it answers is not read

    @asynccontextmanager
    async def _stream(
        self, method: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """The response to a request, which is sent again to where the server has moved within its origin."""
        url = httpx2.URL(self._url)
        for left in reversed(range(MAX_REDIRECTS + 1)):
            async with self._http.stream(method, url, content=content, headers=headers) as response:
                take_head(response)
                elsewhere = _elsewhere(response) if left else None
                if elsewhere is None:
                    yield response
                    return
                url = elsewhere

    def _headers(self, message: dict[str, Any]) -> dict[str, str]:
        headers = {"accept": f"application/json, {EVENT_STREAM}", "content-type": "application/json"}
        if self._session:
            headers["mcp-session-id"] = self._session
        if self._client.stateless:
            headers["mcp-protocol-version"] = STATELESS_VERSION
            headers["mcp-method"] = message.get("method", "")
            name = message.get("params", {}).get("name", "")
            if name and name.isascii():
                headers["mcp-name"] = name
            given = message.get("params", {}).get("arguments", {})
            for place, header in self._client.in_head.get(name, {}).items():
                if (value := _value_at(given, place)) is not None:
                    headers[f"mcp-param-{header}"] = value
        elif message.get("method") != "initialize":
            headers["mcp-protocol-version"] = self._client.protocol
        return headers

    async def _take(self, response: httpx2.Response, asked: set[int]) -> None:
        """Processes the answer to a message; `asked` is its number if it is a request.

        Raises:
            ConnectionLost: the server no longer knows the session, or did not answer a request.
            Unreadable: its answer is malformed.
            BadStatus: its answer to a request is a status alone.
        """
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unreadable  # no other type was requested, and it could be large
        status, session = response.status_code, response.headers.get("mcp-session-id", "")
        if status < 300 and session.isascii() and session.isprintable():  # a refused probe may have one too
            self._session = session or self._session
        answered, streams = False, _media(response) == EVENT_STREAM
        if streams:
            place = _Place()
            answered = await self._hear(response, place, asked)
            if asked and not answered and status < 300:
                answered = await self._resume(place, asked)
        else:
            body, known = await _body(response), bool(self._session)
            gone = known and status == NOT_FOUND
            # what a proxy says of credentials may look like an error of the protocol
            if body.strip() and not gone and status not in (UNAUTHORIZED, FORBIDDEN):
                unsure = known and status == BAD_REQUEST and _NO_SESSION.search(body) is not None
                answered = await self._client.take(body, () if unsure else asked)
                gone = unsure and not answered
            if gone:
                raise ConnectionLost(begun=False)  # a new session costs little
        if asked and not answered:
            if status >= 300:
                raise BadStatus(status)
            # a stream without its answer was cut; a whole body without one says nothing of the connection
            raise ConnectionLost if streams else Unreadable

    async def _hear(self, response: httpx2.Response, place: _Place, asked: set[int]) -> bool:
        """Processes a stream's events up to the answer; returns whether that has come."""
        with suppress(httpx2.HTTPError, OSError):
            async for event in _events(response, place):
                if await self._client.take(event, asked):
                    return True
        return False

    async def _resume(self, place: _Place, asked: set[int]) -> bool:
        """Goes on with a stream that ended ahead of the answer, if the server has told a place in it.

        Returns whether the answer has come.
        """
        with suppress(httpx2.HTTPError, OSError):  # not as of a request that was never sent: the server has it
            while place.event_id and not self._client.stateless:
                await asyncio.sleep(place.wait_s)
                headers = {**self._headers({}), "accept": EVENT_STREAM, "last-event-id": place.event_id}
                async with self._stream("GET", headers) as response:
                    if response.status_code != OK or _media(response) != EVENT_STREAM:
                        return False
                    if await self._hear(response, place, asked):
                        return True
        return False


def _value_at(arguments: Any, place: tuple[str, ...]) -> str | None:
    """An argument's value as a head has it: in base64 if it would not pass as it is. None: it has none."""
    value = arguments
    for name in place:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, str | int | float):
        return None
    told = str(value).lower() if isinstance(value, bool) else str(value)
    if _PLAIN.fullmatch(told) and not told.startswith("=?base64?"):
        return told
    return f"=?base64?{base64.b64encode(told.encode(errors='replace')).decode()}?="


def _elsewhere(response: httpx2.Response) -> httpx2.URL | None:
    """Where a request shall be sent again as it is, such as with a slash at the end; None: nowhere in its origin."""
    location = response.headers.get("location")
    if response.status_code not in REDIRECTS or not location:
        return None
    try:
        url = response.url.join(location)
    except httpx2.InvalidURL:
        return None
    return url if (url.scheme, url.netloc) == (response.url.scheme, response.url.netloc) else None


def _media(response: httpx2.Response) -> str:
    media: str = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media


async def _chunks(response: httpx2.Response, time_slice: TimeSlice) -> AsyncIterator[bytes]:
    """Yields the body as it comes, within the bounds on a response.

    Raises:
        ConnectionLost: it goes beyond them.
    """
    tally = Tally()
    async for chunk in time_slice.each(response.aiter_raw()):
        try:
            tally.add(PIECES)
            tally.add(RESPONSE, len(chunk))
            tally.add(EVENTS, chunk.count(b"\n"))
        except Exceeded:
            raise ConnectionLost from None
        yield chunk


async def _body(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in _chunks(response, TimeSlice()):
        body += chunk
        if len(body) > MAX_MESSAGE_BYTES:
            raise ConnectionLost
    return bytes(body)


async def _events(response: httpx2.Response, place: _Place) -> AsyncIterator[bytes]:
    """Yields the data of each event, and notes the place. An event larger than MAX_MESSAGE_BYTES ends the stream."""
    parts: list[bytes] = []
    data: list[bytes] = []
    length, time_slice = 0, TimeSlice()
    async for chunk in _chunks(response, time_slice):
        *whole, rest = chunk.split(b"\n")
        for end in whole:
            if time_slice.is_over():
                await time_slice.give_way()
            parts.append(end)
            if (told := _data_of(parts)) is not None:
                data.append(told)
            elif any(part.rstrip(b"\r") for part in parts):
                place.note(b"".join(parts))
            else:
                if any(data):  # an event without data tells only where it stands
                    yield b"\n".join(data)
                data, length = [], 0
            parts = []
        parts.append(rest)
        length += len(chunk)
        if length > MAX_MESSAGE_BYTES:
            raise ConnectionLost
    if any(data):
        yield b"\n".join(data)


def _data_of(parts: list[bytes]) -> bytes | None:
    """What a line in parts says as data; None if it says something else. Copied once, since it may have 16 MiB."""
    if len(parts[0]) <= len(_DATA):
        parts = [b"".join(parts)]
    first = parts[0]
    if not first.startswith(_DATA):
        return None
    return b"".join((first[len(_DATA) :].removeprefix(b" "), *parts[1:])).rstrip(b"\r")


@asynccontextmanager
async def reach_server(
    url: str, headers: Mapping[str, str], timeout_seconds: float, client: Client
) -> AsyncIterator[_Http]:
    """Connects to the server at url, and passes its messages to the client."""
    http = httpx2.AsyncClient(
        headers={"user-agent": "onrecord", "accept-encoding": "identity", **headers},
        # a stream of events may be silent for longer than any call
        timeout=httpx2.Timeout(max(300.0, timeout_seconds), connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_connections=None),
        trust_env=False,
        verify=tls_context(),
    )
    async with bound_heads(http):
        link = _Http(url, http, client)
        try:
            yield link
        finally:
            client.lost.set()
            await link.leave()
