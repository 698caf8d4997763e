"""The images as they were built (make test-image): what they say, what is in them, how their services live and die."""

import asyncio
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from demo.model_server import ModelServer
from demo.processes import REPOSITORY
from demo.script import Script
from tests.image.conftest import NAMES, VERSION, Image

pytestmark = [pytest.mark.image, pytest.mark.timeout(180)]

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as missing:  # of the extras of the images
            if missing.name not in ("jinja2", "markupsafe", "starlette", "uvicorn", "cel_expr_python"):
                raise
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settings(image: Image, **others: str) -> dict[str, str]:
    """What deploy/compose.yaml gives the service, but for addresses, which are this machine's."""
    service = yaml.safe_load((REPOSITORY / "deploy/compose.yaml").read_text())["services"][image.name]
    defaults = {key: re.sub(r"\$\{\w+:?-(.*)\}", r"\1", value) for key, value in service["environment"].items()}
    http = {"INTAKE_HTTP_LISTEN": f"127.0.0.1:{free_port()}"} if image.name == "intake" else {}
    return {**defaults, f"{image.name.upper()}_LISTEN": f"127.0.0.1:{free_port()}", **http, **others}


def ids_of(pid: int) -> set[str]:
    """The user and group ids of a process: real, effective, saved, of files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {number for line in lines if line.startswith(("Uid:", "Gid:")) for number in line.split()[1:]}


@asynccontextmanager
async def serving(image: Image, env: dict[str, str]) -> AsyncIterator[subprocess.Popen[bytes]]:
    process = image.start("serve", **env)
    try:
        await asyncio.to_thread(image.wait_until_healthy, process, env)
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_image_says_what_it_is_and_how_it_is_run(image):
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/var/lib/onrecord"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "onrecord-health", image.name]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == f"onrecord {image.name}_svc"
    assert labels["version"] == VERSION
    assert labels["description"]
    assert labels["revision"]


def test_a_service_runs_as_a_user_that_can_write_nothing_but_its_volume_and_tmp(image):
    tried = (
        "id -u; for folder in / /opt/onrecord /etc /usr /var /tmp /var/lib/onrecord; do test -w $folder && echo $folder"
    )
    assert image.run("/bin/sh", "-c", f"{tried}; done").stdout.split() == ["10001", "/tmp", "/var/lib/onrecord"]


def test_an_image_holds_nothing_that_compiles_or_installs_packages_of_python(image):
    found = image.run(
        "/bin/sh", "-c", "command -v gcc cc pip pip3; python3 -c 'import pip'; /opt/onrecord/bin/python -m pip"
    )
    assert found.stdout == ""
    assert found.stderr.count("No module named") == 2


def test_each_module_of_the_service_can_be_loaded_and_other_services_are_not_there(image):
    loaded = image.run("/opt/onrecord/bin/python", "-c", IMPORT_ALL, f"{image.name}_svc", "service_kit", "onrecord")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    for other in (f"{name}_svc" for name in NAMES if name != image.name):
        assert f"No module named '{other}'" in image.run("/opt/onrecord/bin/python", "-c", f"import {other}").stderr
    programs = image.run("/bin/sh", "-c", "ls /opt/onrecord/bin").stdout.split()
    assert [name for name in programs if name.endswith("-svc") or "hook" in name] == [f"{image.name}-svc"]


def test_the_gateways_image_has_the_sandbox_and_the_fast_grep(image):
    there = image.name == "gateway"
    for tool in ("usr/bin/bwrap", "usr/bin/rg"):
        assert (image.root / tool).exists() is there


def test_a_service_refuses_to_speak_plain_text_to_the_network(image):
    refused = image.run(
        *image.config["Entrypoint"], "serve", GATEWAY_OLLAMA_URL="http://127.0.0.1:9", GATEWAY_OLLAMA_MODEL="m"
    )
    assert refused.returncode == 2
    assert f"{image.name.upper()}_TLS_CERT" in refused.stderr


async def test_a_service_gets_healthy_keeps_its_state_in_the_volume_and_ends_with_exit_code_0_at_sigterm(image):
    env = settings(image)
    address = env[f"{image.name.upper()}_LISTEN"]
    stopped = image.healthy(**env)
    assert (stopped.returncode, "UNAVAILABLE" in stopped.stderr) == (1, True)
    async with ModelServer(Script()) as model:
        if image.name == "gateway":
            env["GATEWAY_OLLAMA_URL"] = model.ollama_url
        async with serving(image, env) as process:
            healthy = await asyncio.to_thread(image.healthy, **env)
            assert healthy.stdout.strip() == f"{address}: SERVING"
            assert ids_of(process.pid) == {"10001"}
            process.send_signal(signal.Signals[image.config["StopSignal"]])
            assert await asyncio.to_thread(process.wait, 60) == 0, image.log()
    assert (image.volume / ("audit.db" if image.name == "audit" else "spool")).exists()
    assert (image.volume / "audit.db.seal").exists() is (image.name == "audit")
    assert image.healthy(**env).returncode == 1


async def test_the_two_images_work_together_as_compose_sets_them_up(images, secrets):
    operator = secrets / "operator"
    ca, key, certificate = ((operator / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
    token = (operator / "gateway-token").read_text().strip()
    script = Script.model_validate(
        {"steps": [{"tool_calls": [{"name": "glob", "arguments": {"pattern": "*"}}]}, {"text": "Nothing is there."}]}
    )
    audit_env = settings(images["audit"])
    audit_address = audit_env["AUDIT_LISTEN"]
    async with ModelServer(script) as model:
        gateway_env = settings(
            images["gateway"], GATEWAY_OLLAMA_URL=model.ollama_url, GATEWAY_AUDIT_TARGET=audit_address
        )
        async with serving(images["audit"], audit_env), serving(images["gateway"], gateway_env):
            async with grpc.aio.secure_channel(
                gateway_env["GATEWAY_LISTEN"], grpc.ssl_channel_credentials(ca)
            ) as channel:
                turn = gateway_pb2_grpc.GatewayServiceStub(channel).RunTurn(
                    gateway_pb2.RunTurnRequest(input="What is there?"),
                    metadata=(("authorization", f"Bearer {token}"),),
                    timeout=60,
                )
                events = [event async for event in turn]
            assert events[-1].turn_finished.stop_reason == gateway_pb2.STOP_REASON_COMPLETED
            shown = grpc.ssl_channel_credentials(ca, key, certificate)
            async with grpc.aio.secure_channel(audit_address, shown) as channel:
                questions, every = questions_pb2_grpc.QuestionServiceStub(channel), questions_pb2.ListToolCallsRequest()
                async with asyncio.timeout(60):
                    while not (listed := (await questions.ListToolCalls(every)).tool_calls):
                        await asyncio.sleep(0.1)
    called = [(record.tool_call.tool_name, record.tool_call.outcome) for record in listed]
    assert called == [("glob", common_pb2.OUTCOME_SUCCEEDED)]
