"""The gateway says whether it can do its work, and the probes of containers tell it by their exit code."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.model_server import ModelServer
from demo.processes import Service, run_command, start_service
from demo.script import Script, Step
from tests.e2e.conftest import error_of, run_turn, text_of
from tests.support.certificates import Authority
from tests.support.ports import own_port
from tests.support.tls_door import tls_door

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def said(service: Service, *args: str, module: str = "gateway_svc") -> tuple[int, str]:
    ran = await asyncio.to_thread(run_command, module, {}, "health", "--target", service.address, *args)
    return ran.returncode, (ran.stdout or ran.stderr).strip()


async def probe(module: str, service: Service, *args: str) -> tuple[int, str]:
    code, told = await said(service, *args, module=module)
    return code, told.rpartition(" ")[2]


async def watch_until(address: str, service: str, status: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(30):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
            if answer.status == status:
                return


@pytest.fixture
def port() -> Iterator[int]:
    with own_port() as port:
        yield port


@pytest.mark.long
async def test_a_gateway_serves_while_an_engine_answers(tmp_path, port):
    env = {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_AUDIT_TARGET": "127.0.0.1:1",
        "GATEWAY_STATE_DIR": str(tmp_path),
        "GATEWAY_OLLAMA_URL": f"http://127.0.0.1:{port}",
        "GATEWAY_OLLAMA_MODEL": "m",
        "GATEWAY_HEALTH_SECONDS": "0.1",
    }
    with start_service("gateway_svc", env, "serve") as gateway:
        while "health.not_serving" not in gateway.stderr_text():
            await asyncio.sleep(0.05)
        assert await probe("gateway_svc", gateway) == (1, "ConnectError")
        assert await probe("gateway_svc", gateway, "--live") == (0, "ConnectError")
        async with ModelServer(Script(steps=(Step(text="Done."),)), port=port):
            await watch_until(gateway.address, "onrecord.gateway.v1.GatewayService", SERVING)
            assert await probe("gateway_svc", gateway) == (0, "SERVING")
            async with grpc.aio.insecure_channel(gateway.address) as channel:
                assert text_of(await run_turn(gateway_pb2_grpc.GatewayServiceStub(channel))) == "Done."
            async with asyncio.timeout(30):
                while (told := await said(gateway)) == (0, f"{gateway.address}: SERVING"):
                    await asyncio.sleep(0.05)
            assert told[0] == 0
            assert re.search(r": SERVING: \d+ records wait in the spool: the ledger does not answer$", told[1]), told
        await watch_until(gateway.address, "", NOT_SERVING)
    with start_service("gateway_svc", {**env, "GATEWAY_CLAUDE_COMMAND": "sh -c claude"}, "serve") as gateway:
        await watch_until(gateway.address, "", SERVING)
    assert (await probe("gateway_svc", gateway, "--live"))[0] == 1


@pytest.mark.long
async def test_a_gateway_shows_its_client_certificate_and_says_of_health_what_turns_meet_without(make_pair, tmp_path):
    pair = await make_pair(Script(steps=(Step(text="done", repeat=100),)))
    authority = Authority(tmp_path)
    ours = authority.issue("gateway")
    async with tls_door(authority, pair.model.url) as door:
        env = {
            **dict.fromkeys(("GATEWAY_OPENAI_URL", "GATEWAY_ANTHROPIC_URL"), ""),
            "GATEWAY_OLLAMA_URL": door.url,
            "SSL_CERT_FILE": str(authority.path),
            "GATEWAY_HEALTH_SECONDS": "0.1",
        }
        files = {"GATEWAY_OLLAMA_CLIENT_CERT": str(ours.certificate), "GATEWAY_OLLAMA_CLIENT_KEY": str(ours.key)}
        with pair.start_gateway(**env, **files) as service:
            await watch_until(service.address, "", SERVING)
            assert text_of(await run_turn(await pair.gateway(service))) == "done"
        with pair.start_gateway(**env) as service:
            await watch_until(service.address, "", NOT_SERVING)
            error = error_of(await run_turn(await pair.gateway(service)))
            assert grpc.StatusCode.UNAVAILABLE.value[0] == error.code
            assert f"the connection to {door.url} broke before an answer" in error.message
            assert (await probe("gateway_svc", service))[0] == 1
            assert (await probe("gateway_svc", service, "--live"))[0] == 0
        ran = run_command(
            "gateway_svc", pair.gateway_env({**env, **files, "GATEWAY_OLLAMA_CLIENT_KEY": "/none"}), "serve"
        )
        assert (ran.returncode, ran.stderr.splitlines()[-1][:26]) == (2, "GATEWAY_OLLAMA_CLIENT_KEY:")
