"""What is said where nobody has answered a call: what is the matter at the address, and not what gRPC calls it."""

import asyncio
import http.server
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recording.channel.options import DIRECT
from recording.channel.tls import ClientFiles, channel_credentials
from service_kit import client
from service_kit.access.tls import ServerFiles, server_credentials
from service_kit.health import Health
from service_kit.probe import probe
from service_kit.server import build_server
from service_kit.terminal.command import Exit
from service_kit.terminal.health import tell_health
from service_kit.unanswered import GATEWAY, LEDGER, told
from tests.service_kit.sample_service import NAME, add_sample, sample_interceptor
from tests.support.certificates import Authority
from tests.support.command_line import on_terminal
from tests.support.grpc_server import started

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(
            services: Sequence[str] | None = None, files: ServerFiles | None = None, health: Health | None = None
        ) -> str:
            """The address of a server, whose health tells of services; without any it has no health."""
            server = build_server([sample_interceptor()])
            add_sample(server)
            if services is not None or health:
                health_pb2_grpc.add_HealthServicer_to_server(health or Health(services or []), server)
            credentials = server_credentials(files) if files else None
            return await stack.enter_async_context(started(server, "localhost:0", credentials))

        yield start


def ask(target: str, files: ClientFiles | None = None, method: str = f"/{NAME}/Nothing", value: str = "") -> str:
    """What is told of a call that fails."""
    options = [*DIRECT, ("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.secure_channel(target, channel_credentials(files)(), options)
        if files
        else grpc.insecure_channel(target, options)
    )
    with channel:
        call: Any = channel.unary_unary(method, StringValue.SerializeToString, StringValue.FromString)
        with pytest.raises(grpc.RpcError) as failed:
            call(StringValue(value=value), timeout=30)
        return told(target, LEDGER, failed.value)


def test_that_nobody_listens_is_said_with_what_names_the_address():
    said = ask("127.0.0.1:1")
    assert said == (
        "nobody listens on 127.0.0.1:1: is an audit service running there? "
        "--target or AUDIT_LISTEN names another address"
    )


@pytest.mark.parametrize("name", ["nowhere.invalid", f"{'a' * 64}.invalid"])
def test_a_name_that_is_none_is_told(name):
    assert ask(f"{name}:50052").startswith(f"the name {name} leads to no address; --target or ")


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ([GATEWAY.service], "is not the address of an audit service: a gateway answers there; --target or "),
        ([NAME], "is not the address of an audit service; --target or AUDIT_LISTEN"),
        (None, "is not the address of an audit service; --target or AUDIT_LISTEN"),
        ([LEDGER.service], "and does not know this question: its version is another"),
    ],
    ids=["gateway", "another", "no health", "another version"],
)
async def test_who_answers_at_the_address_of_another_service_is_told(serve, services, said):
    assert said in await asyncio.to_thread(ask, await serve(services))


@pytest.mark.parametrize(("services", "serves"), [([GATEWAY.service], False), ([LEDGER.service], True), ([NAME], True)])
async def test_the_health_of_another_service_is_not_taken_for_that_of_who_was_asked(serve, services, serves):
    health = Health(services)
    health.set(serves=True)
    address = await serve(health=health)
    there, said, _ = await asyncio.to_thread(probe, address, 30, peer=LEDGER)
    assert there == serves
    assert ("a gateway answers there" in said) != serves


async def test_of_a_service_its_sentence_is_told_and_of_others_their_status_too(serve):
    address = await serve([LEDGER.service])
    said = await asyncio.to_thread(ask, address, None, f"/{NAME}/Repeat", "unwanted")
    assert said == "this is not wanted here"
    missing = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/Check"
    address = await serve(health=Health([]))
    said = await asyncio.to_thread(ask, address, None, missing, "x")
    assert said == "NOT_FOUND: no such service is served here"


async def test_where_no_token_was_sent_what_sends_one_is_said(serve, tmp_path):
    address = await serve([LEDGER.service])
    asked = partial(ask, address, None, f"/{NAME}/Repeat", "unknown")
    told = "no token came; --token-file, or ONRECORD_TOKEN_FILE, names a file with a token to send"
    assert await asyncio.to_thread(asked) == told

    def with_one() -> str:
        client.client_options(token_file=tmp_path / "token")
        return asked()

    assert await asyncio.to_thread(with_one) == "no token came"


async def test_tls_and_plain_text_are_told(serve, tmp_path):
    ca = Authority(tmp_path)
    pair = ca.issue("localhost")
    address = await serve(files=ServerFiles(pair.certificate, pair.key))
    said = await asyncio.to_thread(ask, address)
    assert said == f"TLS is spoken at {address}: give --ca, or set ONRECORD_CA"
    address = await serve()
    said = await asyncio.to_thread(ask, address, ClientFiles(ca.path))
    assert said == f"plain text is spoken at {address}: leave out --ca, and ONRECORD_CA"


def test_that_a_web_server_answers_is_told():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            said = ask(f"127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            serving.join()
    assert "is not the address of an audit service: what answers there speaks no gRPC; " in said


async def test_people_are_told_how_long_ago_a_service_looked_and_on_lines_of_a_terminal(serve):
    health = Health([LEDGER.service])
    health.set(serves=True)
    health._at -= 7
    address = await serve(health=health)
    shown = await asyncio.to_thread(shown_health, address)
    assert shown.splitlines() == [f"{address}: SERVING", "last checked 7 s ago"]
    nobody = shown_health("127.0.0.1:1").splitlines()
    assert len(nobody) == 2
    assert max(map(len, nobody)) <= 80


def shown_health(address: str) -> str:
    def act() -> None:
        with pytest.raises(Exit):
            tell_health(address, 30, None, LEDGER, live=False, as_json=False)

    return re.sub(r"\x1b\[\d*m", "", on_terminal(act))
