"""Turns over real agents and scripted model servers in one process, with the rows that they leave."""

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

from google.rpc import error_details_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.script import Script
from gateway_svc.conversations.session import SessionState
from gateway_svc.engines import Engine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.loop.agent import Agent, Limits
from gateway_svc.loop.answers import Answers
from gateway_svc.servicer import status_of
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.requests import Requests
from recording.logger import AuditLogger, Row
from service_kit.pricing import cost_micros
from service_kit.rules.file import Rules
from tests.support.conversations import open_sessions

MODEL = "gpt-4o-mini"
QUICK = Patience(attempts=1)


class Logger:
    """Keeps rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def intend(self, row: audit_pb2.AuditRow) -> None: ...

    async def synced(self) -> None: ...

    def record(self, row: Row) -> None:
        self.rows.append(row)


class House:
    """Two engines, each with a server of its own, and their turns."""

    def __init__(
        self,
        folder: Path,
        ollama: ModelServer,
        openai: ModelServer,
        context_tokens: int | None,
        *,
        responses: bool,
        rules: Rules | None,
        unconfined: Collection[str],
        answers: Answers | None,
        logger: AuditLogger | None,
    ) -> None:
        self.ollama = ollama
        self.openai = openai
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        (self.workspace / "notes.txt").write_text("high tide at noon\n")
        self.logger = Logger()
        self.sessions = open_sessions(folder)
        toolbox = Toolbox([ReadTool(), BashTool(None)], rules=rules, unconfined=unconfined)
        engines: list[tuple[Engine, bool]] = [
            (OllamaEngine(ollama.ollama_url, "scripted", patience=QUICK), True),
            ((ResponsesEngine if responses else OpenAIEngine)(openai.openai_url, MODEL, patience=QUICK), False),
        ]
        self.agents = {
            engine.name: Agent(
                engine,
                toolbox,
                Files(self.workspace),
                logger or self.logger,
                price=partial(cost_micros, openai.openai_url, None, local=local),
                context_tokens=lambda _: context_tokens,
                cuts_silently=local,
                answers=answers or Answers(1),
                limits=Limits(),
            )
            for engine, local in engines
        }
        self.turns = Turns(self.sessions, self.agents, "ollama", self.record_session, status_of, Requests(folder))

    def record_session(self, state: SessionState) -> None:
        self.logger.record(state.to_row())

    async def run(self, **request) -> list[pb.TurnEvent]:
        async with aclosing(self.turns.run(pb.RunTurnRequest(**{"input": "go", **request}))) as events:
            return [event async for event in events]

    async def fail(self, **request) -> str:
        """Runs a turn that fails; the error's reason and message."""
        finished = (await self.run(**request))[-1].turn_finished
        assert finished.stop_reason == pb.STOP_REASON_FAILED
        info = error_details_pb2.ErrorInfo()
        finished.error.details[0].Unpack(info)
        return f"{info.reason}: {finished.error.message}"

    @property
    def calls(self) -> list[audit_pb2.AuditRow]:
        return [row for row in self.logger.rows if isinstance(row, audit_pb2.AuditRow)]

    @property
    def costs(self) -> list[audit_pb2.CostRow]:
        return [row for row in self.logger.rows if isinstance(row, audit_pb2.CostRow)]


@asynccontextmanager
async def open_house(
    folder: Path,
    ollama: Script,
    openai: Script,
    context_tokens: int | None = None,
    *,
    responses: bool = False,
    rules: Rules | None = None,
    unconfined: Collection[str] = (),
    answers: Answers | None = None,
    logger: AuditLogger | None = None,
) -> AsyncIterator[House]:
    """logger: where the rows of calls and requests go, in the place of the house's own."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(ModelServer(ollama))
        second = await stack.enter_async_context(ModelServer(openai))
        house = House(
            folder,
            first,
            second,
            context_tokens,
            responses=responses,
            rules=rules,
            unconfined=unconfined,
            answers=answers,
            logger=logger,
        )
        try:
            yield house
        finally:
            await house.turns.cancel_all()
            for agent in house.agents.values():
                await agent.aclose()


def kinds(events: list[pb.TurnEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


def text_of(events: list[pb.TurnEvent]) -> str:
    return "".join(event.text_delta.text for event in events)


def warnings(events: list[pb.TurnEvent]) -> list[int]:
    return [event.warning.code for event in events if event.HasField("warning")]
