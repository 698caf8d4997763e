"""A transport of httpx2 for HTTP/1.1 without a proxy. What it does not do, httpx2's own transport does."""

import asyncio
import re
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from functools import lru_cache

import httpx2

from gateway_svc.engines.http1.connecting import connect
from gateway_svc.engines.http1.connection import Connection
from gateway_svc.engines.http1.reading import ResponseReader
from gateway_svc.http_client import bound_heads

Origin = tuple[bytes, bytes, int]
"""Scheme, host, port."""

_PORTS = {b"http": 80, b"https": 443}
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"(?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?")
_IDLE_RACE_S = 1.0
"""How long a request may be on its way to a server that closes the connection as idle."""


class Http1Transport(httpx2.AsyncBaseTransport):
    """Keeps idle connections, the last used first, and closes those that were idle for too long."""

    def __init__(self, tls: ssl.SSLContext, idle_seconds: float, others: httpx2.AsyncBaseTransport) -> None:
        """`others` takes the requests that this one does not: see _is_ours."""
        tls.set_alpn_protocols(["http/1.1"])
        self._tls = tls
        self._idle_seconds = idle_seconds
        self._others = others
        self._idle: defaultdict[Origin, deque[Connection]] = defaultdict(deque)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not _is_ours(request):
            return await self._others.handle_async_request(request)
        url = request.url
        origin = (url.raw_scheme, url.raw_host, url.port or _PORTS[url.raw_scheme])
        if connection := self._take(origin):
            asked_at = asyncio.get_running_loop().time()
            try:
                return await self._ask(connection, origin, request)
            except (httpx2.ReadError, httpx2.RemoteProtocolError):
                is_race = asyncio.get_running_loop().time() - asked_at < _IDLE_RACE_S
                if not (connection.was_not_answered and is_race):
                    raise
                # The server closed it, as idle, while the request was on its way.
        return await self._ask(await self._connect(origin, request), origin, request)

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        await self._others.aclose()

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """Keeps a connection for another request, or closes it."""
        if not connection.may_serve_again:
            connection.close()
            return
        connection.idle_since = now = asyncio.get_running_loop().time()
        idle = self._idle[origin]
        idle.append(connection)
        while idle[0].idle_since < now - self._idle_seconds:
            idle.popleft().close()

    def _take(self, origin: Origin) -> Connection | None:
        idle, now = self._idle[origin], asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.may_serve_again and connection.idle_since >= now - self._idle_seconds:
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin, request: httpx2.Request) -> Connection:
        scheme, host, port = origin
        try:
            async with asyncio.timeout(_seconds(request, "connect")):
                name = host.decode("ascii")
                connected = await connect(name, port)
                tls, server = (self._tls, name) if scheme == b"https" else (None, None)
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, sock=connected, ssl=tls, server_hostname=server
                )
        except TimeoutError as error:
            raise httpx2.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(str(error)) from error
        return connection

    async def _ask(self, connection: Connection, origin: Origin, request: httpx2.Request) -> httpx2.Response:
        read_s = _seconds(request, "read")
        method = request.method.encode("ascii")
        try:
            response = await connection.ask(method, _encode(method, request), _seconds(request, "write"), read_s)
        except BaseException:
            connection.close()
            raise
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Body(self, origin, connection, response, read_s),
            extensions={"http_version": b"HTTP/" + response.version, "reason_phrase": response.reason},
        )


def mount(client: httpx2.AsyncClient, tls: ssl.SSLContext, idle_seconds: float) -> httpx2.AsyncClient:
    """Gives a client this transport for what no proxy takes. As an option it would keep httpx2 from using proxies."""
    bound_heads(client)
    client._transport = Http1Transport(tls, idle_seconds, client._transport)
    return client


class _Body(httpx2.AsyncByteStream):
    """The body of a response. Once it is closed, its connection is another's."""

    def __init__(
        self,
        pool: Http1Transport,
        origin: Origin,
        connection: Connection,
        response: ResponseReader,
        read_s: float | None,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._connection = connection
        self._is_closed = False
        self._response = response
        self._read_s = read_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.body(self._response, self._read_s)

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._pool.give_back(self._origin, self._connection)


def _is_ours(request: httpx2.Request) -> bool:
    """Whether a request has its body at hand, and asks for nothing but time limits."""
    return (
        request.url.raw_scheme in _PORTS
        and request.method != "CONNECT"
        and isinstance(request.stream, httpx2.ByteStream)
        and request.extensions.keys() <= {"timeout"}
        and "upgrade" not in request.headers
    )


def _encode(method: bytes, request: httpx2.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, request.url.raw_path)]
    for name, value in request.headers.raw:
        lines.append(_line(name, value))
    return b"\r\n".join([*lines, b"", request.content])


@lru_cache(maxsize=256)
def _line(name: bytes, value: bytes) -> bytes:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise httpx2.LocalProtocolError("a header that cannot be sent")
    return b"%b: %b" % (name, value)


def _seconds(request: httpx2.Request, name: str) -> float | None:
    seconds: float | None = request.extensions.get("timeout", {}).get(name)
    return seconds
