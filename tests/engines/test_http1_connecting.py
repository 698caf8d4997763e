"""Connecting to a name tries its addresses in turn, and leaves no socket open but the one that it returns."""

import asyncio
import errno
import gc
import socket
import warnings
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest

from gateway_svc.engines.http1.connecting import connect
from gateway_svc.engines.http1.transport import mount
from gateway_svc.http_client import tls_context
from tests.support.ports import own_port

NAME = "several.example"


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a listener on IPv4, whose queue has room for all."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield listener.getsockname()[1]


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Has NAME these addresses."""

    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


def client() -> httpx2.AsyncClient:
    return mount(httpx2.AsyncClient(timeout=30, trust_env=False, verify=tls_context()), tls_context(), 60)


async def test_a_connect_that_is_cancelled_at_any_moment_closes_its_sockets(monkeypatch, listening):
    resolve(monkeypatch, ("127.0.0.1", listening), ("127.0.0.1", listening))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with client() as asking:
            for moment in range(40):
                request = asyncio.create_task(asking.get(f"http://{NAME}:{listening}/"))
                for _ in range(moment):
                    await asyncio.sleep(0)
                request.cancel()
                with suppress(asyncio.CancelledError):
                    await request
                del request
                for _ in range(5):
                    await asyncio.sleep(0)
        gc.collect()
    assert [str(warning.message) for warning in told] == []


async def test_the_next_address_serves_where_one_refuses(monkeypatch, listening):
    with own_port() as refusing:
        resolve(monkeypatch, ("127.0.0.1", refusing), ("127.0.0.1", listening))
        async with client() as asking:
            with pytest.raises(httpx2.ReadTimeout):
                await asking.get(f"http://{NAME}/", timeout=httpx2.Timeout(30, read=0.01))


async def test_the_end_of_a_request_waits_for_no_acknowledgement_of_its_beginning(listening):
    with await connect("127.0.0.1", listening) as connected:
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_where_all_addresses_refuse_the_error_says_so(monkeypatch):
    with own_port() as refusing:
        resolve(monkeypatch, ("127.0.0.1", refusing), ("127.0.0.1", refusing))
        async with client() as asking:
            with pytest.raises(httpx2.ConnectError, match=str(errno.ECONNREFUSED)):
                await asking.get(f"http://{NAME}/")
