"""The transport to model servers does what httpx2's own does, in answers and in errors, and keeps its connections."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from gateway_svc.engines.http1 import transport
from gateway_svc.engines.http1.transport import Http1Transport, mount
from gateway_svc.http_client import bound_heads, tls_context
from service_kit.bounds import HEAD
from tests.support.listening import listening

Act = Callable[[StreamReader, StreamWriter], Awaitable[object]]
"""What a server does on a connection after it has read the head of a request."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(slots=True)
class Server:
    url: str = ""
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether the client has closed a connection."""


@asynccontextmanager
async def serving(*acts: Act) -> AsyncIterator[Server]:
    """A server that does the acts one after another, one a request. The last is done again and again."""
    told, left = Server(), list(acts)

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        told.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (OSError, asyncio.IncompleteReadError):
            told.gone.set()

    async with listening(serve) as port:
        told.url = f"http://127.0.0.1:{port}"
        yield told


def sends(*pieces: bytes, close: bool = False) -> Act:
    async def act(reader: StreamReader, writer: StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if close:
            writer.close()

    return act


def resets(*pieces: bytes) -> Act:
    async def act(reader: StreamReader, writer: StreamWriter) -> None:
        await sends(*pieces)(reader, writer)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    return act


def client(*, own: bool = True, read_s: float = 30) -> httpx2.AsyncClient:
    """On our transport, or on httpx2's."""
    made = httpx2.AsyncClient(timeout=httpx2.Timeout(30, read=read_s), trust_env=False, verify=tls_context())
    return mount(made, tls_context(), 60) if own else bound_heads(made)


async def outcome(url: str, *, own: bool, read_s: float = 30, headers: dict[str, str] | None = None) -> object:
    """What a request comes to: the status and the body, or the type of the error."""
    async with client(own=own, read_s=read_s) as asking:
        try:
            answer = await asking.get(url, headers=headers)
        except httpx2.HTTPError as error:
            return type(error)
        return answer.status_code, answer.content, answer.http_version, answer.reason_phrase


ANSWERS: dict[str, tuple[Act, object]] = {
    "a length": (sends(OK), (200, b"ok", "HTTP/1.1", "OK")),
    "byte by byte": (sends(*(OK[at : at + 1] for at in range(len(OK)))), (200, b"ok", "HTTP/1.1", "OK")),
    "chunks": (sends(CHUNKED, b"1;a=b\r\no\r\n1\r\nk\r\n0\r\nx-t: a\r\n\r\n"), (200, b"ok", "HTTP/1.1", "OK")),
    "until the end": (sends(b"HTTP/1.0 200 Fine\r\n\r\nok", close=True), (200, b"ok", "HTTP/1.0", "Fine")),
    "informational ones first": (
        sends(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nlink: </a>\r\n\r\n", OK),
        (200, b"ok", "HTTP/1.1", "OK"),
    ),
    "no body": (sends(b"HTTP/1.1 204 None\r\n\r\n"), (204, b"", "HTTP/1.1", "None")),
    "no answer": (sends(close=True), httpx2.RemoteProtocolError),
    "a cut head": (sends(OK[:20], close=True), httpx2.RemoteProtocolError),
    "a cut body": (sends(OK[:-1], close=True), httpx2.RemoteProtocolError),
    "a cut chunk": (sends(CHUNKED, b"5\r\nhel", close=True), httpx2.RemoteProtocolError),
    "no last chunk": (sends(CHUNKED, b"2\r\nok\r\n", close=True), httpx2.RemoteProtocolError),
    "no chunk": (sends(CHUNKED, b"ok\r\n"), httpx2.RemoteProtocolError),
    "another protocol": (sends(b"SSH-2.0-OpenSSH_9.2\r\n", close=True), httpx2.RemoteProtocolError),
    "a switch": (sends(b"HTTP/1.1 101 X\r\nupgrade: h2c\r\n\r\n"), httpx2.RemoteProtocolError),
    "two lengths": (
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok"),
        httpx2.RemoteProtocolError,
    ),
    "a large head": (sends(b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * (HEAD.limit // 8)), httpx2.RemoteProtocolError),
    "informational ones without end": (
        sends(b"HTTP/1.1 103 X\r\nlink: %b\r\n\r\n" % (b"x" * 1000) * (HEAD.limit // 1000)),
        httpx2.RemoteProtocolError,
    ),
    "a reset": (resets(), httpx2.ReadError),
    "a reset in the body": (resets(OK[:-1]), httpx2.ReadError),
}


@pytest.mark.parametrize("told", ANSWERS)
async def test_an_answer_is_what_httpx2s_own_transport_takes_it_for(told):
    act, expected = ANSWERS[told]
    async with serving(act) as server:
        assert await outcome(server.url, own=True) == expected
        assert await outcome(server.url, own=False) == expected


@pytest.mark.parametrize("own", [True, False])
async def test_what_cannot_be_sent_reached_or_waited_for_has_its_error(own):
    async with serving(sends()) as silent, serving(sends(OK[:-1])) as stuck:
        assert await outcome(silent.url, own=own, read_s=0.01) is httpx2.ReadTimeout
        assert await outcome(stuck.url, own=own, read_s=0.2) is httpx2.ReadTimeout
        assert await outcome(silent.url, own=own, headers={"x-a": "b\r\nc: d"}) is httpx2.LocalProtocolError
    assert await outcome(silent.url, own=own) is httpx2.ConnectError
    assert await outcome("http://no-such-host.invalid", own=own) is httpx2.ConnectError
    assert await outcome("ftp://127.0.0.1", own=own) is httpx2.UnsupportedProtocol


async def test_one_connection_serves_one_request_after_another():
    async with serving(sends(OK)) as server, client() as asking:
        for _ in range(3):
            assert (await asking.post(server.url, content=b"")).content == b"ok"
        assert server.connections == 1


async def test_what_nobody_has_read_of_an_answer_is_not_taken_for_the_next():
    async with serving(sends(OK), sends(OK.replace(b"ok", b"no"))) as server, client() as asking:
        async with asking.stream("GET", server.url) as response:
            assert response.status_code == 200
        assert (await asking.get(server.url)).content == b"no"


@pytest.mark.parametrize(
    "first",
    [
        sends(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse"),
        sends(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")),
        sends(OK.replace(b"1.1", b"1.0")),
    ],
)
async def test_a_connection_that_says_more_or_is_to_be_closed_serves_nobody_else(first):
    """Its next bytes would answer another's request."""
    async with serving(first, sends(OK)) as server, client() as asking:
        assert (await asking.get(server.url)).content == b"ok"
        assert (await asking.get(server.url)).content == b"ok"
        assert server.connections == 2


async def test_a_connection_that_the_server_closes_between_two_requests_is_replaced():
    """It may know of it before it sends the next, or hear of it in the place of an answer."""
    async with serving(sends(OK), sends(close=True), sends(OK, close=True), sends(OK)) as server, client() as asking:
        for connections in (1, 2, 3):
            assert (await asking.get(server.url)).content == b"ok"
            assert server.connections == connections


async def test_a_connection_that_is_closed_long_after_its_request_is_not_replaced(monkeypatch):
    """The server may have worked on it: whoever asks decides whether to ask again."""
    monkeypatch.setattr(transport, "_IDLE_RACE_S", 0.0)
    async with serving(sends(OK), sends(close=True), sends(OK)) as server, client() as asking:
        assert (await asking.get(server.url)).content == b"ok"
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await asking.get(server.url)


async def test_a_new_connection_that_is_closed_without_an_answer_is_an_error():
    """Whoever asks decides whether to ask again."""
    async with serving(sends(close=True), sends(OK)) as server, client() as asking:
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending a response"):
            await asking.get(server.url)
        assert server.connections == 1


async def test_a_server_may_answer_before_it_has_read_the_request():
    """Then the connection is closed: the rest would be taken for another request."""
    answered = asyncio.Event()

    async def act(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await answered.wait()
        while await reader.read(2**16):
            pass
        server.gone.set()

    async with serving(act) as server, client() as asking:
        answer = await asking.post(server.url, content=b"x" * 2**24)
        assert (answer.status_code, answer.content) == (413, b"no")
        answered.set()
        await server.gone.wait()


async def test_a_body_that_nobody_reads_makes_the_server_wait():
    """As much as two readings of it are held."""
    body, sent = b"x" * 2**20, 0

    async def act(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (40 * len(body)))
        for _ in range(40):
            writer.write(body)
            await writer.drain()
            sent += len(body)

    async with serving(act) as server, client() as asking, asking.stream("GET", server.url) as response:
        stream: Any = response.stream
        held = stream._stream._connection
        while held._transport.is_reading():
            await asyncio.sleep(0)
        assert held._size <= 2 * 256 * 1024
        assert sent < 40 * len(body)
        assert sum([len(piece) async for piece in response.aiter_raw()]) == 40 * len(body)


@pytest.mark.parametrize("begun", [True, False])
async def test_a_request_that_is_cancelled_closes_its_connection(begun):
    arrived = asyncio.Event()

    async def act(reader: StreamReader, writer: StreamWriter) -> None:
        if begun:
            writer.write(OK[:-1])
        arrived.set()

    async with serving(act) as server, client() as asking:
        task = asyncio.create_task(asking.get(server.url))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.gone.wait()


async def test_an_idle_connection_is_closed_after_its_time():
    async with serving(sends(OK)) as server:
        transport = Http1Transport(tls_context(), 0, httpx2.AsyncHTTPTransport(verify=False))
        async with httpx2.AsyncClient(transport=transport) as asking:
            await asking.get(server.url)
            await asyncio.sleep(0.001)
            await asking.get(server.url)
            assert server.connections == 2
            await server.gone.wait()


async def test_a_body_that_is_not_at_hand_goes_by_httpx2s_own_transport():
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ok"

    async def act(reader: StreamReader, writer: StreamWriter) -> None:
        assert await reader.readuntil(b"0\r\n\r\n") == b"2\r\nok\r\n0\r\n\r\n"
        writer.write(OK)

    async with serving(act) as server, client() as asking:
        assert (await asking.post(server.url, content=pieces())).content == b"ok"
