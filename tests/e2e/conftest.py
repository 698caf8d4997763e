"""The pair as it runs in production: two processes, a model server on a real port, a real workspace."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc, questions_pb2, questions_pb2_grpc
from onrecord.gateway.v1 import approvals_pb2_grpc, gateway_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.processes import Service, start_service
from demo.script import Script
from tests.support.ports import own_port

SECONDS_TO_ARRIVE = 30.0


class Pair:
    """Both services and a scripted model server. What a test does not start is not there."""

    def __init__(self, folder: Path, model: ModelServer, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.state_dir = folder / "gateway"
        self.db = folder / "audit" / "audit.db"
        self.model = model
        self.audit_address = ""
        self._stack = stack

    def start_audit(self, **env: str) -> Service:
        listen = self.audit_address or f"127.0.0.1:{self._stack.enter_context(own_port())}"
        service = start_service("audit_svc", {"AUDIT_LISTEN": listen, "AUDIT_DB": str(self.db), **env}, "serve")
        self._stack.enter_context(service)
        self.audit_address = service.address
        return service

    def gateway_env(self, env: Mapping[str, str]) -> dict[str, str]:
        return {
            "GATEWAY_LISTEN": "127.0.0.1:0",
            "GATEWAY_AUDIT_TARGET": self.audit_address or "127.0.0.1:1",
            "GATEWAY_STATE_DIR": str(self.state_dir),
            "GATEWAY_WORKSPACE": str(self.workspace),
            "GATEWAY_BASH_SANDBOX": "auto" if shutil.which("bwrap") else "off_as_root",
            "GATEWAY_OLLAMA_URL": self.model.ollama_url,
            "GATEWAY_OLLAMA_MODEL": "scripted",
            "GATEWAY_OPENAI_URL": self.model.openai_url,
            "GATEWAY_OPENAI_MODEL": "scripted",
            "GATEWAY_ANTHROPIC_URL": self.model.anthropic_url,
            "GATEWAY_ANTHROPIC_MODEL": "scripted",
            "GATEWAY_DEFAULT_ENGINE": "ollama",
            "GATEWAY_WEBFETCH_ALLOW": self.model.url.removeprefix("http://"),
            **env,
        }

    def start_gateway(self, **env: str) -> Service:
        service = start_service("gateway_svc", self.gateway_env(env), "serve")
        self._stack.enter_context(service)
        return service

    def start_door(self, **env: str) -> Service:
        listen = {"INTAKE_LISTEN": "127.0.0.1:0", "INTAKE_HTTP_LISTEN": "127.0.0.1:0"}
        state = {"INTAKE_STATE_DIR": str(self.folder / "intake"), "INTAKE_AUDIT_TARGET": self.audit_address}
        service = start_service("intake_svc", {**listen, **state, **env}, "serve")
        self._stack.enter_context(service)
        return service

    async def gateway(self, service: Service) -> "gateway_pb2_grpc.GatewayServiceAsyncStub":
        return gateway_pb2_grpc.GatewayServiceStub(await self.channel(service.address))

    async def approvals(self, service: Service) -> "approvals_pb2_grpc.ApprovalServiceAsyncStub":
        return approvals_pb2_grpc.ApprovalServiceStub(await self.channel(service.address))

    async def audit(self) -> "audit_pb2_grpc.AuditServiceAsyncStub":
        return audit_pb2_grpc.AuditServiceStub(await self.channel(self.audit_address))

    async def questions(self) -> "questions_pb2_grpc.QuestionServiceAsyncStub":
        return questions_pb2_grpc.QuestionServiceStub(await self.channel(self.audit_address))

    async def channel(self, address: str) -> grpc.aio.Channel:
        return await self._stack.enter_async_context(grpc.aio.insecure_channel(address))

    async def rows(self, count: int, **conditions) -> list[audit_pb2.AuditRow]:
        """The ledger's tool calls, the oldest first, once there are as many as count."""
        questions = await self.questions()
        wanted = questions_pb2.ToolCallFilter(**conditions)
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            while True:
                request = questions_pb2.ListToolCallsRequest(page_size=1000, filter=wanted)
                records = (await questions.ListToolCalls(request)).tool_calls
                if len(records) >= count:
                    return [record.tool_call for record in records][::-1]
                await asyncio.sleep(0.02)

    async def costs(self, count: int) -> None:
        """Waits until the ledger has as many cost rows."""
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            while self.query("SELECT count(*) FROM cost_log")[0][0] < count:
                await asyncio.sleep(0.02)

    async def until(self, sql: str, answer: list[tuple[Any, ...]]) -> None:
        """Waits until the database answers so."""
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            while self.query(sql) != answer:
                await asyncio.sleep(0.02)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Reads the database beside the service that owns it."""
        connection = sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


async def run_turn(gateway, **request) -> list[pb.TurnEvent]:
    return [event async for event in gateway.RunTurn(pb.RunTurnRequest(**{"input": "go", **request}))]


def error_of(events: list[pb.TurnEvent]) -> status_pb2.Status:
    """Why a turn failed."""
    finished = events[-1].turn_finished
    assert finished.stop_reason == pb.STOP_REASON_FAILED
    return finished.error


def kinds(events: list[pb.TurnEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


def text_of(events: list[pb.TurnEvent]) -> str:
    return "".join(event.text_delta.text for event in events)


@pytest.fixture
async def make_pair(tmp_path: Path) -> AsyncIterator[Callable[[Script], Awaitable[Pair]]]:
    async with AsyncExitStack() as stack:

        async def make(script: Script) -> Pair:
            model = await stack.enter_async_context(ModelServer(script))
            return Pair(tmp_path, model, stack)

        yield make
