"""The probe of the images says of a service what its own command says, and fails where there is no answer."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc

from demo.processes import REPOSITORY
from service_kit.access.tls import ServerFiles, server_credentials
from service_kit.health import DETAIL_KEY, MAX_DETAIL_CHARACTERS, Health
from service_kit.probe import probe
from service_kit.quick_probe import DETAIL_KEY as WRITTEN_KEY
from service_kit.server import build_server
from tests.support.certificates import Authority
from tests.support.grpc_server import started
from tests.support.listening import listening
from tests.support.ports import needs_ipv6

PROBE = [sys.executable, "-IS", str(REPOSITORY / "service_kit/quick_probe.py")]
Ask = Callable[..., Awaitable[tuple[int, str]]]


async def run(env: dict[str, str], *words: str) -> tuple[int, str]:
    """The exit code and what it says on stdout, or else on stderr."""
    ran = await asyncio.to_thread(
        subprocess.run, [*PROBE, *words], env=env, capture_output=True, encoding="utf-8", timeout=30
    )
    assert not (ran.stdout and ran.stderr)
    return ran.returncode, (ran.stdout or ran.stderr).strip()


@pytest.fixture
async def health():
    return Health(["a.B"])


def telling(health: Health) -> grpc.aio.Server:
    server = build_server([])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server


DETAILS = [
    "",
    "é ",
    "the disk is full: /var/lib/onrecord",
    "ü" * MAX_DETAIL_CHARACTERS,
    "x" * 126,
    "x" * 127,
    "two\nlines\x1b",
]


@pytest.mark.long
@pytest.mark.parametrize("listen", ["127.0.0.1:0", pytest.param("[::1]:0", marks=needs_ipv6), "unix"])
async def test_it_says_what_the_command_says_whatever_the_status(health, listen, tmp_path):
    async with started(telling(health), f"unix:{tmp_path}/socket" if listen == "unix" else listen) as address:
        for serves in (True, False):
            for detail in DETAILS if listen == "127.0.0.1:0" else DETAILS[:2]:
                health.set(serves=serves, detail=detail)
                expected, told, _ = await asyncio.to_thread(probe, address, 10.0)
                code, said = await run({"AUDIT_LISTEN": address}, "audit")
                assert expected is serves is (code == 0)
                if "\n" not in detail:
                    assert said == told.strip()
                assert said.isprintable()
                assert (await run({"INTAKE_LISTEN": address}, "intake", "--live"))[0] == 0
    assert await run({"AUDIT_LISTEN": address}, "audit", "--live") == (1, f"{address}: UNAVAILABLE")


@pytest.mark.long
@pytest.mark.parametrize("is_mutual", [False, True])
async def test_it_trusts_and_shows_the_services_own_certificate(health, is_mutual, tmp_path):
    authority = Authority(tmp_path)
    own, other = authority.server(host="audit"), authority.server(host="audit", file="other")
    files = ServerFiles(own.certificate, own.key, authority.path if is_mutual else None)
    health.set(serves=True, detail="look here")

    def env(certificate: Path, key: Path, **others: str) -> dict[str, str]:
        ca = {"AUDIT_TLS_CLIENT_CA": str(authority.path)} if is_mutual else {}
        return {"AUDIT_LISTEN": address, "AUDIT_TLS_CERT": str(certificate), "AUDIT_TLS_KEY": str(key), **ca, **others}

    async with started(telling(health), credentials=server_credentials(files)) as address:
        assert await run(env(own.certificate, own.key), "audit") == (0, f"{address}: SERVING: look here")
        assert await run(env(other.certificate, other.key), "audit") == (1, f"{address}: UNAVAILABLE"), "not its own"
        assert await run({"AUDIT_LISTEN": address}, "audit") == (1, f"{address}: UNAVAILABLE"), "in plain text"
        assert (await run(env(tmp_path / "none", own.key), "audit"))[0] == 1
        if is_mutual:
            without = env(own.certificate, own.key)
            del without["AUDIT_TLS_CLIENT_CA"]
            assert await run(without, "audit") == (1, f"{address}: UNAVAILABLE"), "shows nothing"
            client = {"ONRECORD_CA": str(authority.path)}
            client |= {"ONRECORD_CERT": str(other.certificate), "ONRECORD_KEY": str(other.key)}
            assert (await run({**without, **client}, "audit"))[0] == 0, "shows and trusts what it is told to"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", bytes(9), b"\0\0\0\7\0\0\0\0\0", os.urandom(400)]
)
async def test_who_is_no_such_service_is_never_taken_for_one(answer):
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with listening(speak) as port:
        address = f"127.0.0.1:{port}"
        assert await run({"GATEWAY_LISTEN": address}, "gateway", "--live") == (1, f"{address}: UNAVAILABLE")


async def test_a_server_without_health_does_not_serve():
    async with started(build_server([])) as address:
        assert (await run({"AUDIT_LISTEN": address}, "audit", "--live"))[0] == 1


@pytest.mark.long
async def test_who_says_nothing_is_waited_for_no_longer_than_the_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert await run({"AUDIT_LISTEN": address}, "audit") == (1, f"{address}: DEADLINE_EXCEEDED")


async def test_a_wrong_command_line_or_a_missing_setting_is_told():
    for words in [(), ("postgres",), ("audit", "--alive"), ("--live", "audit")]:
        code, said = await run({}, *words)
        assert (code, said.startswith("usage: onrecord-health")) == (2, True)
    assert await run({}, "audit") == (1, "AUDIT_LISTEN is not set")
    assert (await run({"AUDIT_LISTEN": "localhost"}, "audit"))[0] == 1


def test_the_key_of_the_detail_is_the_one_that_health_sends():
    assert WRITTEN_KEY.decode() == DETAIL_KEY
