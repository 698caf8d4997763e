"""Real handshakes: who gets in, who is kept out, and what changes while the server runs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.wrappers_pb2 import StringValue
from structlog.testing import capture_logs

from recording.channel.certificates import certificate_name
from recording.channel.tls import ClientFiles, channel_credentials
from recording.channel.watched import WrongFile
from service_kit.access.tls import ServerFiles, server_credentials
from service_kit.server import build_server
from tests.service_kit.sample_service import NAME, add_sample, sample_interceptor
from tests.support.certificates import Authority, Pair
from tests.support.grpc_server import started

Serve = Callable[[ServerFiles], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(files: ServerFiles) -> str:
            server = build_server([sample_interceptor()])
            add_sample(server)
            return await stack.enter_async_context(started(server, credentials=server_credentials(files)))

        yield start


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files_of(pair: Pair, ca: Authority | None = None) -> ServerFiles:
    return ServerFiles(pair.certificate, pair.key, ca.path if ca else None)


async def call(address: str, ca: Authority, pair: Pair | None = None) -> str:
    """Calls on a connection of its own, and says how the handshake went."""
    files = ClientFiles(ca.path, pair.certificate, pair.key) if pair else ClientFiles(ca.path)
    # By its address, since another test's server may have the port of localhost's other address.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(address, channel_credentials(files)(), options) as channel:
        method: Any = channel.unary_unary(f"/{NAME}/Repeat", StringValue.SerializeToString, StringValue.FromString)
        try:
            answer = await method(StringValue(value="in"), timeout=30)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return str(answer.value)


async def test_a_client_gets_in_when_it_trusts_the_servers_ca(serve, ca):
    address = await serve(files_of(ca.server()))
    assert await call(address, ca) == "in"


async def test_a_client_that_trusts_another_ca_stays_away(serve, ca, tmp_path):
    address = await serve(files_of(ca.server()))
    assert "CERTIFICATE_VERIFY_FAILED" in await call(address, Authority(tmp_path, "other"))


async def test_a_client_stays_away_from_an_expired_certificate_and_the_log_says_why(serve, ca):
    with capture_logs() as logged:
        address = await serve(files_of(ca.server(days=0)))
    assert [event["event"] for event in logged] == ["tls.certificate_expired"]
    assert "certificate has expired" in await call(address, ca)


async def test_a_client_stays_away_from_a_certificate_for_another_host(serve, ca):
    address = await serve(files_of(ca.server(host="elsewhere.example")))
    assert "Hostname Verification Check failed" in await call(address, ca)


async def test_under_mtls_only_a_good_certificate_of_the_client_ca_gets_in(serve, ca, tmp_path):
    address = await serve(files_of(ca.server(), ca))
    stranger = Authority(tmp_path, "stranger").issue("client", file="strangers")
    assert await call(address, ca, ca.issue("client")) == "in"
    assert await call(address, ca) != "in"
    assert await call(address, ca, stranger) != "in"
    assert await call(address, ca, ca.issue("client", days=0, file="expired")) != "in"


async def test_a_new_certificate_is_shown_without_a_restart(serve, ca, tmp_path):
    pair, new_ca = ca.server(), Authority(tmp_path, "new")
    address = await serve(files_of(pair))
    assert await call(address, ca) == "in"
    new = new_ca.server(file="new-server")
    with capture_logs() as logged:
        new.certificate.replace(pair.certificate)
        # Between the two files the pair does not match: the old one goes on to count.
        assert await call(address, ca) == "in"
        new.key.replace(pair.key)
        assert await call(address, new_ca) == "in"
        assert await call(address, ca) != "in"
    assert [event["event"] for event in logged] == ["files.kept_as_before", "files.reloaded"]


async def test_a_new_client_ca_counts_without_a_restart(serve, ca, tmp_path):
    client_ca, new_ca = Authority(tmp_path, "clients"), Authority(tmp_path, "new-clients")
    client, new = client_ca.issue("client"), new_ca.issue("client", file="new")
    address = await serve(files_of(ca.server(), client_ca))
    assert await call(address, ca, client) == "in"
    assert await call(address, ca, new) != "in"
    new_ca.path.replace(client_ca.path)
    assert await call(address, ca, new) == "in"
    assert await call(address, ca, client) != "in", "a session that it could resume lets nobody in"


def test_wrong_files_are_told_by_name(ca, tmp_path):
    pair, other = ca.server(), ca.server(file="other")
    text = tmp_path / "text"
    text.write_text("no PEM")
    for files, told in (
        (ServerFiles(tmp_path / "missing", pair.key), "missing: cannot be read"),
        (ServerFiles(text, pair.key), "text: holds no certificate"),
        (ServerFiles(pair.certificate, text), "text: is not a private key"),
        (ServerFiles(pair.certificate, other.key), "other.key: is not the key of"),
        (ServerFiles(pair.certificate, pair.key, text), "text: holds no certificate"),
    ):
        with pytest.raises(WrongFile, match=told):
            server_credentials(files)
    with pytest.raises(WrongFile, match="text: holds no certificate"):
        channel_credentials(ClientFiles(text))


def test_a_probe_finds_the_name_that_a_certificate_is_for(ca):
    assert certificate_name(ca.server(host="audit.example").certificate) == "audit.example"
    with pytest.raises(WrongFile, match="names no host"):
        certificate_name(ca.issue("bare", x509.UniformResourceIdentifier("spiffe://a/b")).certificate)
