"""A new engine is one new file: settings, wiring, health, listings, rows and prices know it without another edit."""

import asyncio
import os
import sys
from pathlib import Path

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from tests.e2e.conftest import run_turn, text_of
from tests.engines.asking import events, raw_server

GATEWAY = """
import asyncio, sys
from gateway_svc import engines
engines.__path__.append(sys.argv[1])
from gateway_svc.server import serve
from gateway_svc.settings import GatewaySettings
asyncio.run(serve(GatewaySettings()))
"""


@pytest.mark.long
async def test_a_file_in_the_folder_of_engines_is_an_engine(tmp_path):
    answer = events({"content": "It "}, {"content": "continues."}, {"stop": True, "tokens_evaluated": 7}, done=False)
    async with raw_server(answer) as server:
        env = {
            "PYTHONPATH": ":".join(sys.path),
            "PATH": os.environ["PATH"],
            "GATEWAY_AUDIT_TARGET": os.environ["GATEWAY_AUDIT_TARGET"],
            "GATEWAY_COMPLETION_URL": server.url,
            "GATEWAY_COMPLETION_MODEL": "gemma",
            "GATEWAY_LISTEN": f"unix:{tmp_path}/socket",
            "GATEWAY_STATE_DIR": str(tmp_path / "state"),
            "GATEWAY_BASH_SANDBOX": "off_as_root",
        }
        folder = str(Path(__file__).parent / "plugged")
        gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", GATEWAY, folder, env=env)
        try:
            async with grpc.aio.insecure_channel(f"unix:{tmp_path}/socket") as channel:
                stub = gateway_pb2_grpc.GatewayServiceStub(channel)
                listed = await stub.ListEngines(pb.ListEnginesRequest(), wait_for_ready=True, timeout=60)
                told = await run_turn(stub, input="Once")
        finally:
            gateway.terminate()
            await gateway.wait()
    (engine,) = listed.engines
    assert (engine.name, engine.default_model, engine.is_default) == ("completion", "gemma", True)
    assert text_of(told) == "It continues."
    assert told[-1].turn_finished.usage.input_tokens == 7
    assert "UserMessage: Once\n" in server.bodies[-1]["prompt"]
