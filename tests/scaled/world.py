"""Replicas of both services behind Envoy, with TLS and tokens as deploy/ sets them up, and a model that calls tools."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onrecord.audit.v1 import audit_pb2, questions_pb2, questions_pb2_grpc

from demo.model_server import ModelServer
from demo.processes import Service, start_service
from recording.channel.options import CLIENT_OPTIONS
from tests.scaled.envoy import Envoy, configuration
from tests.support.pages import pages_of
from tests.support.ports import own_port

SECONDS_TO_ARRIVE = 30.0
_READ_AT_ONCE = 1000


@dataclass(frozen=True)
class Homes:
    """Where the ledger and sessions lie: settings of each service, in which {number} stands for the replica's."""

    audit: Mapping[str, str]
    gateway: Mapping[str, str]
    ledgers: int
    """How many ledgers there can be on it."""


class Replicas:
    """Some of each service; each can be killed, and started again on its port. Envoy leads to those that serve."""

    def __init__(self, folder: Path, secrets: Path, model: ModelServer, homes: Homes) -> None:
        counts = ("audit", homes.ledgers), ("gateway", 2)
        self.replicas = [(name, number) for name, count in counts for number in range(count)]
        self.folder = folder
        self.secrets = secrets
        self.model = model
        self._given = {"audit": homes.audit, "gateway": homes.gateway}
        self._running: dict[tuple[str, int], Service] = {}
        self._ports: dict[str, list[int]] = {}
        self._listen: dict[str, int] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Replicas":
        for name, _ in self.replicas:
            self._ports.setdefault(name, []).append(self._port())
        self._listen = {name: self._port() for name in ("gateway", "ledger", "questions")}
        (self.folder / "workspace").mkdir()
        self._stack.callback(self._end)
        await asyncio.gather(*(self.start(*replica) for replica in self.replicas))
        led = {"gateway": self._ports["gateway"], "ledger": self._ports["audit"], "questions": self._ports["audit"]}
        envoys = configuration(self.secrets / "envoy", self._listen, led)
        self.envoy = self._stack.enter_context(Envoy(self.folder, envoys))
        async with self.gateway() as channel:
            await _serves(channel)
        async with self.ledger() as channel:
            await _serves(channel)
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._stack.aclose()

    async def start(self, name: str, number: int) -> None:
        """Starts a replica, for the first time or again."""
        own = self.secrets / name
        prefix = name.upper()
        env = {
            f"{prefix}_LISTEN": f"127.0.0.1:{self._ports[name][number]}",
            f"{prefix}_TLS_CERT": f"{own}/cert.pem",
            f"{prefix}_TLS_KEY": f"{own}/key.pem",
            f"{prefix}_TOKENS_FILE": f"{own}/callers.toml",
            **{key: value.format(number=number) for key, value in self._given[name].items()},
        }
        if name == "audit":
            env["AUDIT_TLS_CLIENT_CA"] = f"{own}/ca.pem"
        else:
            env |= {
                "GATEWAY_AUDIT_TARGET": f"localhost:{self._listen['ledger']}",
                "GATEWAY_AUDIT_TLS_CA": f"{own}/ca.pem",
                "GATEWAY_AUDIT_TLS_CERT": f"{own}/cert.pem",
                "GATEWAY_AUDIT_TLS_KEY": f"{own}/key.pem",
                "GATEWAY_PRODUCER_NAME": "gateway",
                "GATEWAY_WORKSPACE": str(self.folder / "workspace"),
                "GATEWAY_OPENAI_URL": self.model.openai_url,
                "GATEWAY_OPENAI_MODEL": "scripted",
            }
        self._running[name, number] = await asyncio.to_thread(start_service, f"{name}_svc", env, "serve")

    async def kill(self, name: str, number: int) -> None:
        """SIGKILL, in whatever it is doing."""
        service = self._running.pop((name, number))
        await asyncio.to_thread(service.__exit__, None, None, None)

    @property
    def gateway_address(self) -> str:
        """Where Envoy takes what is for a gateway."""
        return f"localhost:{self._listen['gateway']}"

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to a gateway, through Envoy. A call needs `token`."""
        trusted = grpc.ssl_channel_credentials((self.secrets / "operator/ca.pem").read_bytes())
        options = [*CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(self.gateway_address, trusted, options) as channel:
            yield channel

    @property
    def token(self) -> tuple[tuple[str, str], ...]:
        """The metadata that shows who calls a gateway."""
        return (("authorization", f"Bearer {(self.secrets / 'operator/gateway-token').read_text().strip()}"),)

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to a ledger, through Envoy, as the operator, who may ask."""
        files = [(self.secrets / "operator" / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem")]
        shown = grpc.ssl_channel_credentials(*files)
        async with grpc.aio.secure_channel(f"localhost:{self._listen['questions']}", shown, CLIENT_OPTIONS) as channel:
            yield channel

    async def rows(self) -> list[audit_pb2.AuditRow]:
        """All tool calls in the ledger."""
        async with self.ledger() as channel:
            questions = questions_pb2_grpc.QuestionServiceStub(channel)
            listed = pages_of(questions.ListToolCalls, questions_pb2.ListToolCallsRequest(page_size=_READ_AT_ONCE))
            return [record.tool_call async for page in listed for record in page.tool_calls]

    async def rows_with(self, calls: set[str]) -> dict[str, list[audit_pb2.AuditRow]]:
        """The rows by the id that the model gave their calls, once there are those of calls."""
        by_call: dict[str, list[audit_pb2.AuditRow]] = {}
        deadline = asyncio.get_running_loop().time() + SECONDS_TO_ARRIVE
        while calls - by_call.keys():
            assert asyncio.get_running_loop().time() < deadline, f"without rows: {calls - by_call.keys()}"
            await asyncio.sleep(0.2)
            by_call = defaultdict(list)
            for row in await self.rows():
                by_call[row.provider_call_id].append(row)
        return by_call

    def _end(self) -> None:
        for service in self._running.values():
            service.__exit__(None, None, None)

    def _port(self) -> int:
        return self._stack.enter_context(own_port())


async def _serves(channel: grpc.aio.Channel) -> None:
    """Waits until a service serves behind Envoy."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.1)
