"""Peers that mean harm: the services stay up, serve others, and take no memory without bound."""

import asyncio
import random
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.model_server import ModelServer
from demo.processes import Service
from demo.script import Script, Step
from tests.hostile.conftest import SERVICES, Start, connect, others_are_served
from tests.hostile.eager import EagerModel
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.unread import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    POST,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.support.certificates import Authority

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

METHODS = {
    "audit_svc": "/onrecord.audit.v1.AuditService/RecordBatch",
    "gateway_svc": "/onrecord.gateway.v1.GatewayService/RunTurn",
}


HELLO = PREFACE + frame(SETTINGS, 0, 0)
ATTACKS = {
    "nothing at all": b"",
    "random bytes": random.Random(6).randbytes(64 * 1024),
    "HTTP/1.1": b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    "a TLS hello": b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03" + bytes(240),
    "half a preface": PREFACE[:10],
    "random bytes behind the preface": HELLO + random.Random(7).randbytes(64 * 1024),
    "a frame larger than allowed": HELLO + frame(DATA, 0, 1, b"x" * 100, length=2**24 - 1),
    "a frame that never ends": HELLO + frame(HEADERS, 4, 1, POST, length=16_000),
    "data for a stream that is not open": HELLO + frame(DATA, 0, 7, b"hello"),
    "headers that do not unpack": HELLO + frame(HEADERS, 5, 1, b"\xff" * 200),
    "headers for an even stream": HELLO + frame(HEADERS, 5, 2, POST),
    "a push promise": HELLO + frame(PUSH_PROMISE, 4, 1, b"\x00\x00\x00\x02"),
    "settings of a wrong size": PREFACE + frame(SETTINGS, 0, 0, b"\x00" * 5),
    "a window beyond its maximum": HELLO + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "a window update of nothing": HELLO + frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "unknown frames": HELLO + frame(0xBB, 0xFF, 3, b"hello") * 1000,
    "100,000 pings": HELLO + frame(PING, 0, 0, bytes(8)) * 100_000,
    "100,000 settings": HELLO + frame(SETTINGS, 0, 0) * 100_000,
    "continuations without end": HELLO
    + frame(HEADERS, 0, 1, POST)
    + frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 2000) * 500,
    "50,000 streams that are reset at once": HELLO
    + b"".join(frame(HEADERS, 4, 2 * n + 1, POST) + frame(RST_STREAM, 0, 2 * n + 1, bytes(4)) for n in range(50_000)),
}


def attack(service: Service, payload: bytes) -> None:
    """Sends payload for as long as the service takes it, and reads what it says."""
    with connect(service) as peer, suppress(OSError):
        peer.settimeout(2)
        with suppress(TimeoutError):
            peer.sendall(payload)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


@pytest.mark.parametrize("module", SERVICES)
def test_malformed_http2_disturbs_nobody_and_leaves_nothing_behind(start: Start, module: str):
    service = start(module)
    assert others_are_served(service)
    before = forget_peak(service)
    for name, payload in ATTACKS.items():
        attack(service, payload)
        assert service.process.poll() is None, name
        assert others_are_served(service), name
    assert memory(service, "VmHWM") - before < 64 * MIB


@pytest.mark.parametrize("module", SERVICES)
def test_plaintext_to_a_tls_port_is_turned_away(start: Start, module: str, tmp_path):
    service, credentials = start_with_tls(start, module, tmp_path)
    with grpc.insecure_channel(service.address) as channel:
        call: Any = channel.unary_unary(METHODS[module])
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=30)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    for name, payload in ATTACKS.items():
        attack(service, payload)
        assert others_are_served(service, credentials), name


@pytest.mark.long
@pytest.mark.parametrize("module", SERVICES)
def test_1000_handshakes_that_stand_still_or_creep_keep_nobody_out_and_are_let_go(start: Start, module: str, tmp_path):
    service, credentials = start_with_tls(start, module, tmp_path)
    before = memory(service)
    hello = ATTACKS["a TLS hello"]
    with ExitStack() as stack:
        peers = [stack.enter_context(connect(service)) for _ in range(1000)]
        for peer in peers:
            peer.sendall(hello[:20])
            peer.setblocking(False)
        standing, creeping = peers[:500], peers[500:]
        given_up = time.monotonic() + 100  # gRPC's own patience is 120 s
        for byte in hello[20:]:  # a byte a second keeps no handshake alive
            assert others_are_served(service, credentials)
            creeping = [peer for peer in creeping if is_open(peer, bytes([byte]))]
            standing = [peer for peer in standing if is_open(peer)]
            if not standing + creeping or time.monotonic() > given_up:
                break
            time.sleep(1)
        assert not standing + creeping, "they are let go"
        assert memory(service, "VmHWM") - before < 1000 * 128 * 1024


def is_open(peer: socket.socket, sent: bytes = b"") -> bool:
    """Whether the service has not ended the connection. Sends it something."""
    try:
        peer.sendall(sent)
        return bool(peer.recv(4096, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def start_with_tls(start: Start, module: str, folder: Path) -> tuple[Service, grpc.ChannelCredentials]:
    """The service, and what its clients need."""
    ca = Authority(folder)
    pair, prefix = ca.server(), module.partition("_")[0].upper()
    service = start(
        module,
        **{
            f"{prefix}_LISTEN": "localhost:0",
            f"{prefix}_TLS_CERT": str(pair.certificate),
            f"{prefix}_TLS_KEY": str(pair.key),
        },
    )
    return service, grpc.ssl_channel_credentials(ca.path.read_bytes())


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("module", SERVICES)
def test_a_message_of_100_mb_is_refused_and_never_held(start: Start, module: str, compression: grpc.Compression):
    service = start(module)
    assert others_are_served(service)
    before = forget_peak(service)
    with grpc.insecure_channel(service.address) as channel:
        kind: Any = channel.unary_unary if module == "audit_svc" else channel.unary_stream
        call: Any = kind(METHODS[module])
        with pytest.raises(grpc.RpcError) as refused:
            b"".join(call(bytes(100 * 10**6), timeout=120, compression=compression))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert others_are_served(service)
    assert memory(service, "VmHWM") - before < 80 * MIB


@pytest.fixture
def files() -> Iterator[Callable[[int], None]]:
    """Sets how many files this process, and what it starts, may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda number: resource.setrlimit(resource.RLIMIT_NOFILE, (number or hard, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("module", SERVICES)
def test_10_000_connections_that_say_nothing_keep_nobody_out_and_are_let_go(start: Start, module: str, files):
    files(1024)
    service = start(module)
    files(0)
    assert others_are_served(service)
    before = memory(service)
    with ExitStack() as stack:
        peers = []
        for number in range(10_000):
            peers.append(stack.enter_context(connect(service)))
            if number % 2:
                with suppress(OSError):
                    peers[-1].sendall(HELLO)
        assert others_are_served(service)
        assert service.process.poll() is None
        assert memory(service) - before < 10_000 * 64 * 1024
        # The kit is the same in both: that one of each kind is let go, which takes 40 s, is looked at in one.
        for peer in peers[:2] if module == "audit_svc" else []:
            peer.settimeout(100)
            while peer.recv(65536):
                pass
    assert others_are_served(service)


async def test_a_client_that_does_not_read_its_turn_holds_up_its_own_turn_alone(start: Start):
    """Of 200 MB the gateway takes what fits into buffers, and ends at its bound when the client reads; others run."""
    eager = EagerModel()
    async with eager, ModelServer(Script(steps=(Step(text="done"),))) as model:
        service = await asyncio.to_thread(
            start,
            "gateway_svc",
            GATEWAY_OLLAMA_URL=eager.url,
            GATEWAY_OPENAI_URL=model.openai_url,
            GATEWAY_OPENAI_MODEL="m",
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with (
            grpc.aio.insecure_channel(service.address, options) as slow,
            grpc.aio.insecure_channel(service.address, options) as channel,
        ):
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)

            async def another_turn() -> int:
                turn = stub.RunTurn(pb.RunTurnRequest(input="go", engine="openai"))
                return [event async for event in turn][-1].turn_finished.stop_reason

            async def read_to_the_end() -> pb.TurnEvent:
                last = pb.TurnEvent()
                while isinstance(event := await call.read(), pb.TurnEvent):
                    last = event
                return last

            assert await another_turn() == pb.STOP_REASON_COMPLETED
            before = forget_peak(service)
            call = gateway_pb2_grpc.GatewayServiceStub(slow).RunTurn(pb.RunTurnRequest(input="go"))
            assert isinstance(await call.read(), pb.TurnEvent)
            assert await eager.stands_still() < 40 * 10**6
            assert memory(service, "VmHWM") - before < 64 * MIB
            assert await another_turn() == pb.STOP_REASON_COMPLETED
            told = (await read_to_the_end()).turn_finished.error.message
            assert "more than 4,194,304 characters of text" in told
            assert await another_turn() == pb.STOP_REASON_COMPLETED
