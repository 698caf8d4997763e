"""The scripted servers of the tests leave nothing of a connection behind, at whatever moment they end."""

import asyncio
import gc
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.certificates import Authority
from tests.support.listening import listening

MOMENTS = 12
"""Rounds of the event loop, from a connect until the connection is served, and some more."""


@contextmanager
def nothing_left() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in told] == []


async def serve_until_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    while await reader.read(2**16):
        pass


@pytest.fixture(params=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, tmp_path) -> ssl.SSLContext | None:
    if request.param == "plain":
        return None
    pair, context = Authority(tmp_path).server(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.mark.long
@pytest.mark.parametrize("moment", range(MOMENTS))
async def test_a_client_that_connects_at_the_moment_of_closing_leaves_nothing(tls, moment):
    with nothing_left(), socket.socket() as client:
        async with listening(serve_until_the_end, tls=tls) as port:
            client.connect(("127.0.0.1", port))
            for _ in range(moment):
                await asyncio.sleep(0)
        client.settimeout(30)
        try:
            while client.recv(100):
                pass
        except ConnectionResetError:
            pass
        assert len(asyncio.all_tasks()) == 1


async def test_a_connection_ends_behind_what_serves_it_with_all_that_was_written():
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 2**24)

    with nothing_left():
        async with listening(serve) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert len(await reader.read()) == 2**24
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("error", [ConnectionResetError(), asyncio.IncompleteReadError(b"", 1)])
async def test_a_client_that_leaves_ends_its_connection_alone(error):
    served = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        if served == 1:
            raise error
        writer.write(b"hello")

    with nothing_left():
        async with listening(serve) as port:
            for expected in (b"", b"hello"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == expected
                writer.close()
                await writer.wait_closed()
