"""A connection without a request is closed in time, whatever comes on it meanwhile."""

import asyncio
import socket

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service_kit import http_server
from service_kit.http_server import serve_http
from tests.support.others import others
from tests.support.ports import own_port

pytestmark = pytest.mark.long

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def slow(request: Request) -> Response:
    """Takes longer than a connection may be without a request."""
    await asyncio.sleep(0.7)
    return Response("done")


async def left_alone(address: str, *sent: bytes) -> bytes:
    """What comes on a connection until the server closes it, on which bytes are sent one after the other."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = b""
    try:
        for part in sent:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        while more := await reader.read(1_000):
            answer += more
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


async def dribbled(address: str) -> None:
    """Sends a head that never ends, until the server closes."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    closed = asyncio.create_task(reader.read())
    try:
        writer.write(b"GET / HTTP/1.1\r\n")
        while not closed.done():
            writer.write(b"A: b\r\n")
            await asyncio.wait([closed], timeout=0.01)
    finally:
        writer.close()
        await asyncio.gather(closed, return_exceptions=True)


@pytest.fixture
async def address(monkeypatch):
    monkeypatch.setattr(http_server, "_IDLE_SECONDS", 0.5)
    app = Starlette(routes=[Route("/", slow)])
    with own_port() as port:
        async with serve_http(app, address := f"127.0.0.1:{port}", None, 100):
            yield address


async def test_a_body_that_comes_at_once_leaves_turns_to_others(address, monkeypatch):
    received = http_server._Protocol.data_received
    async with others() as beside:

        def counted(self, data: bytes) -> None:
            beside.done += len(data)
            received(self, data)

        monkeypatch.setattr(http_server._Protocol, "data_received", counted)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await left_alone(address, head + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    assert b" 405 " in answer.split(b"\r\n")[0]
    assert 0 < beside.most <= 16 * 1024


def test_the_body_of_an_answer_waits_for_no_acknowledgement_of_its_head():
    with http_server._tcp_socket("127.0.0.1:0") as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_a_client_that_sends_nothing_half_a_head_or_a_head_without_end_is_closed(address):
    async with asyncio.timeout(30):
        assert await left_alone(address) == b""
        assert await left_alone(address, b"GET / HT") == b""
        await dribbled(address)


async def test_an_answer_that_takes_longer_comes_and_the_connection_ends_behind_it(address):
    async with asyncio.timeout(30):
        answer = await left_alone(address, REQUEST, b"GET / HT")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"done")
