"""A server that is not ours, `@copilotkit/aimock` of npm, is spoken to in each of the four wire formats."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines import Engine
from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.loop.agent import Agent, Limits
from gateway_svc.loop.answers import Answers
from gateway_svc.servicer import status_of
from gateway_svc.tools.files import Files
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.requests import Requests
from tests.gateway_svc.house import Logger, text_of
from tests.support.conversations import open_sessions

PACKAGE = "@copilotkit/aimock@1.43.0"
QUICK = Patience(attempts=2, wait_s=0.001)

pytestmark = [pytest.mark.npm, pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed")]


@asynccontextmanager
async def aimock() -> AsyncIterator[str]:
    """Where it listens."""
    command = ("npx", "-y", PACKAGE, "-c", "aimock.json")
    program = await asyncio.create_subprocess_exec(
        *command, cwd=Path(__file__).parent / "aimock", stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert program.stdout is not None
        async with asyncio.timeout(120):
            line = (await program.stdout.readline()).decode()
        if not line:
            pytest.skip("npm's registry cannot be reached")
        found = re.search(r"http://\S+", line)
        assert found, line
        yield found[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)  # npx does not end what it has started
        await program.wait()


def engine_at(url: str, name: str) -> Engine:
    match name:
        case "ollama":
            return OllamaEngine(url, "m", patience=QUICK)
        case "anthropic":
            return AnthropicEngine(url, "m", api_key="k", patience=QUICK)
        case "responses":
            return ResponsesEngine(f"{url}/v1", "m", patience=QUICK)
        case _:
            return OpenAIEngine(f"{url}/v1", "m", patience=QUICK)


@pytest.mark.parametrize("name", ["ollama", "openai", "responses", "anthropic"])
async def test_a_turn_with_a_tool_a_thought_and_a_failure_over_each_wire_format(tmp_path, name):
    workspace, logger = tmp_path / "workspace", Logger()
    workspace.mkdir()
    (workspace / "notes.txt").write_text("high tide at noon\n")
    async with aimock() as url:
        engine = engine_at(url, name)
        agent = Agent(
            engine,
            Toolbox([ReadTool()]),
            Files(workspace),
            logger,
            price=lambda model, usage: None,
            answers=Answers(1),
            limits=Limits(),
        )
        turns = Turns(
            open_sessions(tmp_path),
            {engine.name: agent},
            engine.name,
            lambda state: None,
            status_of,
            Requests(tmp_path),
        )
        events = [event async for event in turns.run(pb.RunTurnRequest(input="read it"))]
        assert text_of(events) == "It says high tide at noon."
        session_id = events[0].turn_accepted.session_id
        rows = [row for row in logger.rows if isinstance(row, audit_pb2.AuditRow)]
        assert [(row.tool_name, row.outcome) for row in rows] == [("read", common_pb2.OUTCOME_SUCCEEDED)]
        events = [event async for event in turns.run(pb.RunTurnRequest(input="think", session_id=session_id))]
        assert text_of(events) == "Thought."
        events = [event async for event in turns.run(pb.RunTurnRequest(input="fail", session_id=session_id))]
        assert "HTTP 529 and says: overloaded" in events[-1].turn_finished.error.message
        await turns.cancel_all()
        await agent.aclose()
