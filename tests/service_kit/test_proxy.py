"""No channel of ours goes through a proxy that the environment names: it is there for the web, and would see tokens."""

import ast
import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import grpc
import pytest
from onrecord.client import AsyncGateway
from onrecord.gateway.v1 import gateway_pb2

from recording.delivery.connection import Connection, Target, open_target
from service_kit.client import ClientAccess, open_channel
from service_kit.probe import probe
from service_kit.server import build_server
from tests.support.grpc_server import started

REPOSITORY = Path(__file__).parents[2]
OURS = ("recording", "service_kit", "gateway_svc", "audit_svc", "clients/python/lib", "demo", "bench")
OPENS = ("insecure_channel", "secure_channel")
DIRECT = ("CLIENT_OPTIONS", "DIRECT")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What a proxy hears that the environment names for everything."""
    heard: list[bytes] = []

    class Proxy(BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(4096))

    server = ThreadingTCPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield heard
    server.shutdown()
    server.server_close()


def target(address: str) -> Target:
    return open_target(address, None, None, "")


async def by_command(address: str) -> str:
    channel, _ = open_channel(address)
    async with channel:
        return await failure(ask(channel))


def ask(channel: grpc.aio.Channel, timeout_seconds: float = 10) -> Awaitable[object]:
    method: Any = channel.unary_unary("/none.None/None")
    answer: Awaitable[object] = method(b"", timeout=timeout_seconds)
    return answer


async def by_probe(address: str) -> str:
    return (await asyncio.to_thread(probe, address, 10.0, ClientAccess(), None))[1]


async def by_delivery(address: str) -> str:
    connection = Connection(target(address))
    try:
        return await failure(connection.record_batch(b"", 10.0))
    finally:
        await connection.aclose()


async def by_client(address: str) -> str:
    async with AsyncGateway(address) as gateway:
        return await failure(gateway.stub.ListEngines(gateway_pb2.ListEnginesRequest(), timeout=10))


async def failure(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name


@pytest.mark.parametrize("way", [by_command, by_probe, by_delivery, by_client])
async def test_the_way_to_a_service_is_direct(asked: list[bytes], way: Callable[[str], Awaitable[str]]) -> None:
    """A server that knows no method answers for itself."""
    async with started(build_server([])) as address:
        assert "UNIMPLEMENTED" in await way(address)
    assert asked == []


async def test_the_proxy_would_be_asked(asked: list[bytes]) -> None:
    """By a channel without the option, so that the test above can fail."""
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        await failure(ask(channel, timeout_seconds=2))
    assert asked[0].startswith(b"CONNECT 127.0.0.1:9 ")


def test_every_channel_of_ours_is_opened_so() -> None:
    """Each call that opens one names options that begin with the common ones."""
    opened = 0
    for folder in OURS:
        for path in (REPOSITORY / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            if "_channel(" not in text:
                continue
            for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Attribute) and call.func.attr in OPENS:
                    given = ast.unparse(call).rpartition("(")[2]
                    named = any(name in given for name in DIRECT) or any(f"*{name}" in text for name in DIRECT)
                    assert named, f"{path}:{call.lineno}"
                    opened += 1
    assert opened > 10
