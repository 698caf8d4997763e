"""A real model decides for a tool by itself, and its call is in the ledger."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import grpc
import pytest
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.processes import REPOSITORY, start_service
from gateway_svc.engines import Engine, StepResult, TextDelta
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.messages import Message, ToolDefinition, ToolMessage, UserMessage
from gateway_svc.tools.arguments import json_schema
from gateway_svc.tools.bash import BashArguments
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.webfetch import WebfetchTool
from onrecord_cli.gemma import RealModel, RealModelUnavailable, assemble_model

PROMPT = "Read the file README.md"
README = (REPOSITORY / "demo" / "workspace" / "README.md").read_text()
TOOLS = [
    ToolDefinition("bash", "Runs a bash command in the workspace.", json_schema(BashArguments)),
    ToolDefinition("webfetch", WebfetchTool.description, json_schema(WebfetchTool.parameters)),
    ToolDefinition("read", ReadTool.description, json_schema(ReadTool.parameters)),
]
LEAVE_AMID_AN_ANSWER = """
import asyncio
import time
import httpx2
from onrecord_cli.gemma import RealModel

async def main():
    async with httpx2.AsyncClient() as client:
        async with RealModel() as server:
            body = {"messages": [{"role": "user", "content": "Tell a story. " * 1500}], "stream": True}
            request = client.build_request("POST", f"{server.openai_url}/chat/completions", json=body)
            await client.send(request, stream=True)
            began = time.monotonic()
        # About a second, and 31 where the server pings by default: how long the model took to load does not count.
        seconds = time.monotonic() - began
        print("left" if seconds < 28 else f"left after {seconds} s")

asyncio.run(main())
"""


@pytest.fixture
async def server() -> AsyncIterator[RealModel]:
    async with RealModel() as server:
        yield server


async def take_step(engine: Engine, messages: Sequence[Message]) -> tuple[str, StepResult]:
    text = ""
    encoded = [engine.encode_message(message) for message in messages]
    async with aclosing(engine.step(engine.default_model, encoded, engine.encode_tools(TOOLS))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.text
            else:
                return text, event
    raise AssertionError("the step has no result")


@pytest.mark.real_model
@pytest.mark.parametrize("kind", [OpenAIEngine, ResponsesEngine])
async def test_the_model_calls_a_tool_by_itself_and_answers_from_its_result(server, kind):
    """One call that fits the prompt, the same each time and another for another prompt, then text; each with usage."""
    engine = kind(server.openai_url, server.model)
    messages: list[Message] = [UserMessage(PROMPT)]
    text, result = await take_step(engine, messages)
    (call,) = result.message.tool_calls
    assert (text, call.name, json.loads(call.arguments)) == ("", "read", {"path": "README.md"})
    assert call.provider_call_id
    assert result.model == server.model
    assert (result.usage.complete, result.usage.cached_input_tokens) == (True, 0)
    assert result.usage.input_tokens > 200
    assert result.usage.output_tokens > 10

    text, answer = await take_step(
        engine, [*messages, result.message, ToolMessage(call.provider_call_id, "read", README)]
    )
    assert "sample project" in text
    assert answer.message.text == text
    assert answer.message.tool_calls == ()
    assert answer.usage.cached_input_tokens > 200

    _, again = await take_step(engine, messages)
    assert [(call.name, call.arguments) for call in again.message.tool_calls] == [(call.name, call.arguments)]

    _, other = await take_step(engine, [UserMessage("Run python3 tides.py")])
    (call,) = other.message.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("bash", {"command": "python3 tides.py"})
    await engine.aclose()


@pytest.mark.real_model
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_turn_through_the_pair_leaves_the_models_call_in_the_ledger(server, tmp_path, api):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "README.md").write_text(README)
    audit_env = {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(tmp_path / "audit.db")}
    async with AsyncExitStack() as stack:
        audit = stack.enter_context(start_service("audit_svc", audit_env, "serve"))
        gateway_env = {
            "GATEWAY_LISTEN": "127.0.0.1:0",
            "GATEWAY_AUDIT_TARGET": audit.address,
            "GATEWAY_STATE_DIR": str(tmp_path / "gateway"),
            "GATEWAY_WORKSPACE": str(tmp_path / "workspace"),
            "GATEWAY_OPENAI_URL": server.openai_url,
            "GATEWAY_OPENAI_MODEL": server.model,
            "GATEWAY_OPENAI_LOCAL": "true",
            "GATEWAY_OPENAI_API": api,
            "GATEWAY_MAX_STEPS": "3",
        }
        gateway = stack.enter_context(start_service("gateway_svc", gateway_env, "serve"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.address))
        turn = gateway_pb2_grpc.GatewayServiceStub(channel).RunTurn(pb.RunTurnRequest(input=PROMPT))
        finished = [event async for event in turn][-1].turn_finished
        assert finished.stop_reason == pb.STOP_REASON_COMPLETED
        assert (finished.usage.requests, finished.tool_calls) == (2, 1)
        assert finished.usage.output_tokens > 20

        channel = await stack.enter_async_context(grpc.aio.insecure_channel(audit.address))
        ledger = questions_pb2_grpc.QuestionServiceStub(channel)
        listed: Sequence[questions_pb2.ToolCallRecord] = []
        while not listed:
            await asyncio.sleep(0.05)
            listed = (await ledger.ListToolCalls(questions_pb2.ListToolCallsRequest())).tool_calls
        (row,) = [record.tool_call for record in listed]
        assert (row.engine, row.model, row.tool_name) == ("openai", server.model, "read")
        assert "README.md" in row.args_summary
        assert row.outcome == common_pb2.OUTCOME_SUCCEEDED
        assert row.result_bytes == len(README.encode())


@pytest.mark.real_model
def test_the_process_ends_although_an_answer_was_under_way():
    """Nothing of the server is left that would keep the process, and it does not wait for the answer or the client."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_AMID_AN_ANSWER],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


@pytest.mark.real_model
def test_a_model_file_that_was_broken_off_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = assemble_model()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(1000)
    assert assemble_model() == path
    assert path.stat().st_size == size
    assert list(path.parent.iterdir()) == [path]


async def test_without_its_packages_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(RealModelUnavailable, match=r"the extra `gemma` is not installed.* wheel for this machine"):
        async with RealModel():
            pass
