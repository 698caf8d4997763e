"""The agent loop over a real engine and a real model server, with loggers that work and loggers that do not."""

import ast
import asyncio
import os
import threading
from collections.abc import Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.script import Call, Script, Step
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.loop import agent as agent_module
from gateway_svc.loop.agent import Agent, Limits
from gateway_svc.loop.answers import Answers
from gateway_svc.messages import Message, UserMessage
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.ruling import Policy
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.turns.account import TurnAccount
from gateway_svc.turns.events import TurnEvents
from gateway_svc.turns.turn import Turn
from recording.calls import Scope
from recording.delivery.connection import Target
from recording.logger import AuditLogger, AuditRefused, Row
from recording.record import open_record

SCOPE = Scope("session-1", "ollama", "scripted", "turn-1")
TWO_TOOLS = Script(
    steps=(
        Step(
            text="Look: ",
            tool_calls=(
                Call(name="read", arguments={"path": "a.txt"}),
                Call(name="bash", arguments={"command": "exit 3"}),
            ),
        ),
        Step(text="done"),
    )
)


class Logger:
    """Keeps what it is given, or breaks as a test wants it."""

    def __init__(self, error: Exception | None = None, *, refuse: bool = False) -> None:
        self.intents: list[audit_pb2.AuditRow] = []
        self.rows: list[Row] = []
        self._error = error
        self._refuse = refuse

    def intend(self, row: audit_pb2.AuditRow) -> None:
        if self._refuse:
            raise AuditRefused("the record is full")
        if self._error:
            raise self._error
        self.intents.append(row)

    async def synced(self) -> None: ...

    def record(self, row: Row) -> None:
        if self._error:
            raise self._error
        self.rows.append(row)

    @property
    def calls(self) -> list[audit_pb2.AuditRow]:
        return [row for row in self.rows if isinstance(row, audit_pb2.AuditRow)]


@asynccontextmanager
async def agent_for(
    script: Script,
    workspace: Path,
    logger: AuditLogger,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    policies: Mapping[str, Policy] | None = None,
    answers: Answers | None = None,
):
    async with ModelServer(script) as server:
        toolbox = Toolbox([ReadTool(), BashTool(None)], policies=policies)
        engine = OllamaEngine(server.ollama_url, "scripted")
        agent = Agent(
            engine,
            toolbox,
            Files(workspace),
            logger,
            price=lambda model, usage: 0,
            answers=answers or Answers(1),
            limits=limits,
        )
        try:
            yield agent, server
        finally:
            await agent.aclose()


def new_turn() -> Turn:
    history: list[Message] = [UserMessage("go")]
    events = TurnEvents()
    return Turn(SCOPE, "", history, history.append, events, TurnAccount(events.warn))


async def heard(turn: Turn) -> list[str]:
    """What the client is told, without what differs from run to run."""
    turn.events.close()
    told = []
    async for event in turn.events.stream():
        kind = str(event.WhichOneof("event"))
        if kind == "tool_call_finished":
            finished = event.tool_call_finished
            kind += f" {finished.tool_name} {finished.outcome} {finished.exit_code} {finished.result_bytes}"
        told.append(kind)
    return told


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("tides\n")
    return tmp_path


async def test_the_row_carries_the_scope_of_the_turn_and_follows_its_intent(workspace):
    logger = Logger()
    async with agent_for(TWO_TOOLS, workspace, logger) as (agent, _):
        turn = new_turn()
        assert await agent.run(turn) == pb.STOP_REASON_COMPLETED
    assert {row.id for row in logger.intents} == {row.id for row in logger.calls}
    for row in [*logger.intents, *logger.calls]:
        assert (row.session_id, row.engine, row.model, row.turn_id) == ("session-1", "ollama", "scripted", "turn-1")
    by_tool = {row.tool_name: row for row in logger.calls}
    assert by_tool["bash"].exit_code == 3
    assert by_tool["read"].result_bytes == 6
    costs = [row for row in logger.rows if isinstance(row, audit_pb2.CostRow)]
    assert [cost.requested_model for cost in costs] == ["scripted"] * 2


def test_the_loop_builds_rows_at_one_call_site():
    trees = [ast.parse(path.read_text()) for path in Path(agent_module.__file__).parent.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node.func.id for node in nodes if isinstance(node.func, ast.Name)]
    assert calls.count("open_call") == calls.count("close_call") == 1


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left"),
        pytest.param(RuntimeError("broken"), marks=pytest.mark.long),
        pytest.param(ValueError("closed"), marks=pytest.mark.long),
    ],
)
async def test_a_broken_audit_path_changes_nothing_of_a_turn(workspace, error):
    whole = []
    for logger in (Logger(), Logger(error)):
        async with agent_for(TWO_TOOLS, workspace, logger) as (agent, server):
            turn = new_turn()
            assert await agent.run(turn) == pb.STOP_REASON_COMPLETED
            sent = [request.json["messages"] for request in server.requests]
            texts = [[message.get("content") for message in messages] for messages in sent]
            whole.append((sorted(await heard(turn)), texts, len(turn.history)))
    assert whole[0] == whole[1]


async def test_a_refusing_record_keeps_the_tool_from_running_and_tells_the_model(workspace):
    script = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "touch ran"}),)), Step(text="ok")))
    logger = Logger(refuse=True)
    async with agent_for(script, workspace, logger) as (agent, server):
        assert await agent.run(new_turn()) == pb.STOP_REASON_COMPLETED
        assert "the record is full" in server.requests[-1].json["messages"][-1]["content"]
    assert not (workspace / "ran").exists()
    assert [row.outcome for row in logger.calls] == [common_pb2.OUTCOME_DENIED]
    assert logger.calls[0].created_at_ms > 1_700_000_000_000


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.2])
async def test_every_call_of_a_cancelled_step_has_one_row_and_one_result(workspace, delay):
    calls = tuple(Call(name="bash", arguments={"command": "sleep 30"}) for _ in range(6))
    logger = Logger()
    limits = Limits(max_parallel_tools=2)
    async with agent_for(Script(steps=(Step(tool_calls=calls),)), workspace, logger, limits) as (agent, _):
        turn = new_turn()
        task = asyncio.create_task(agent.run(turn))
        while len(turn.history) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(logger.calls) == len({row.id for row in logger.calls}) == 6
    assert {row.outcome for row in logger.calls} == {common_pb2.OUTCOME_CANCELLED}
    assert len(turn.history) == 2 + 6


async def test_a_call_that_was_cancelled_before_it_began_took_no_time(workspace):
    """However long somebody was asked whether it may run: that is told as what it is."""
    script = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "touch ran"}),)),))
    logger, answers = Logger(), Answers(1)
    async with agent_for(script, workspace, logger, policies={"bash": "ask"}, answers=answers) as (agent, _):
        task = asyncio.create_task(agent.run(new_turn()))
        while not answers.waiting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (row,) = logger.calls
    assert (row.outcome, row.duration_ms) == (common_pb2.OUTCOME_CANCELLED, 0)
    assert row.decision.waited_ms >= 50
    assert not (workspace / "ran").exists()


async def test_encoding_work_does_not_grow_with_the_history(workspace):
    step = Step(tool_calls=(Call(name="read", arguments={"path": "a.txt"}),), repeat=30)
    async with agent_for(Script(steps=(step, Step(text="done"))), workspace, Logger()) as (agent, server):
        encoded = 0
        encode = agent._engine.encode_message

        def counting(message: Message):
            nonlocal encoded
            encoded += 1
            return encode(message)

        agent._engine.encode_message = counting
        turn = new_turn()
        await agent.run(turn)
        assert encoded == len(turn.history) == 62
        assert len(server.requests[-1].json["messages"]) == 61


async def test_a_model_has_one_name_on_the_record_however_random_it_looks(workspace):
    """An id such as a fine-tuned model's looks like a key; the audit rows and the cost rows must still agree on it."""
    model = "ft:gpt-4o-mini-2024-07-18:acme::BzQ3kX9vLm2TpR8wYc5D"
    logger = Logger()
    async with agent_for(TWO_TOOLS, workspace, logger) as (agent, _):
        turn = new_turn()
        turn.scope = Scope("session-1", "ollama", model, "turn-1")
        await agent.run(turn)
    costs = [row for row in logger.rows if isinstance(row, audit_pb2.CostRow)]
    assert {row.requested_model for row in costs} == {row.model for row in logger.calls} == {model}


async def test_with_syncs_always_a_tool_runs_after_its_intent_is_synced_and_other_work_goes_on_meanwhile(
    tmp_path, monkeypatch
):
    free, asked = threading.Event(), threading.Event()
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        asked.set()
        free.wait()
        real(fd)

    record = open_record(tmp_path / "state", Target("127.0.0.1:1"), sync="always")
    ran = tmp_path / "ran"
    script = Script(
        steps=(Step(tool_calls=(Call(name="bash", arguments={"command": f"touch {ran}"}),)), Step(text="done"))
    )
    async with agent_for(script, tmp_path, record.logger) as (agent, _):
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        turn = new_turn()
        running = asyncio.create_task(agent.run(turn))
        while not asked.is_set():
            await asyncio.sleep(0.001)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not ran.exists()
        assert not running.done()
        free.set()
        assert await running == pb.STOP_REASON_COMPLETED
        assert ran.exists()
    await record.aclose()
