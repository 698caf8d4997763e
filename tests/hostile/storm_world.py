"""What a storm rages in: the services, all peers that mean harm, honest clients, and kills."""

import asyncio
import json
import random
import shlex
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.processes import REPOSITORY, Service
from service_kit.access.request_parts import request_type
from tests.faults.gateway_world import GatewayWorld
from tests.faults.ledger import Findings
from tests.faults.world import wait_for
from tests.hostile import claude_attacks, mcp_attacks, model_attacks
from tests.hostile.held import MIB
from tests.hostile.mcp_over_http import HTTP_ATTACKS, McpAttacks
from tests.hostile.model_attacks import ModelAttacks
from tests.hostile.obedient import ObedientModel
from tests.hostile.page_attacks import ATTACKS as PAGES
from tests.hostile.page_attacks import add_to
from tests.hostile.test_calls import at_once, list_calls, list_sessions
from tests.hostile.test_hostile import ATTACKS as FRAMES
from tests.hostile.test_hostile import attack
from tests.hostile.test_requests import LIMITS, attacks, methods, send
from tests.hostile.test_tools import CASES, furnish
from tests.hostile.test_unread import streams
from tests.hostile.test_usage import QUESTIONS
from tests.hostile.unread import unread
from tests.tools.pages import Pages

HONEST_CLIENTS = 2
HONEST_PAUSE_SECONDS = 0.1
PEERS_AT_ONCE = 3
PEER_SECONDS = 60.0
"""How long one may go on, or a quarter of a half of a short storm."""
CALM_SECONDS = 0.5
"""How long a peer that is to pause sleeps before it looks again."""

Peer = Callable[[random.Random], Awaitable[object]]


class StormWorld(GatewayWorld):
    """Two gateways on one state folder, the second of which comes and goes, and the peers of both."""

    def __init__(self, rng: random.Random, peer_seconds: float = PEER_SECONDS) -> None:
        super().__init__(rng)
        self._peer_seconds = peer_seconds
        self.told = Counter[str]()
        """What the honest clients' turns came to at gateways that are killed."""
        self.told_standing = Counter[str]()
        """What they came to at the gateway that stands, in the second half."""
        self.attacks = Counter[str]()
        """How often each peer has done its harm."""
        self.unexpected = Counter[str]()
        """What a peer met that it should not: its own faults."""
        self.audit: Service
        """The one that runs, or ran last; always at the same address."""
        self.standing: Service | None = None
        self.second: Service | None = None
        self._stands: Service | None = None
        """The standing gateway once it is not killed any more."""
        self._calm, self._over = threading.Event(), threading.Event()
        self._at_work = set[str]()
        self._obedient, self._model_attacks, self._mcp = ObedientModel(), ModelAttacks(), McpAttacks()
        self._pages = Pages()
        self.temporary = self.folder / "temporary"
        add_to(self._pages)

    def start_audit(self, **settings: Any) -> None:
        """Also in the place of one that was killed."""
        super().start_audit(**settings)
        assert self._audit is not None
        self.audit = self._audit

    def begin(self) -> None:
        """Starts everything."""
        self.start()
        self.temporary.mkdir()
        self._workspace.mkdir(exist_ok=True)
        furnish(self._workspace)
        for peer in (self._obedient, self._model_attacks, self._mcp, self._pages):
            asyncio.run_coroutine_threadsafe(peer.__aenter__(), self._loop).result()
            self._stack.callback(self._end_peer, peer)
        self.start_standing()
        self.start_second()
        for number in range(HONEST_CLIENTS):
            self._begin_thread(self._stay_honest, number)
        for number in range(PEERS_AT_ONCE):
            seed = self.rng.randrange(2**32)
            self._begin_thread(self._begin_harm, f"{seed}-{number}")

    def start_standing(self) -> None:
        """The gateway that stands in the second half."""
        self.standing = self.start_gateway(None, **self._settings())

    def start_second(self) -> None:
        """The gateway that is killed in both."""
        self.second = self.start_gateway(None, **self._settings())

    def _settings(self) -> dict[str, str]:
        command = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, str(Path(claude_attacks.__file__))]
        mcp = self.folder / "mcp.json"
        program = {"command": sys.executable, "args": [str(Path(mcp_attacks.__file__)), "go"]}
        bodies, events = ({"url": f"{self._mcp.url}/{way}"} for way in ("json", "events"))
        mcp.write_text(json.dumps({"mcpServers": {"program": program, "json": bodies, "events": events}}))
        return {
            "GATEWAY_OLLAMA_URL": self._obedient.url,
            "GATEWAY_OPENAI_URL": self._model.openai_url,
            "GATEWAY_OPENAI_MODEL": "scripted",
            "GATEWAY_ANTHROPIC_URL": self._model_attacks.url,
            "GATEWAY_ANTHROPIC_MODEL": "m",
            "GATEWAY_CLAUDE_COMMAND": shlex.join(command),
            "GATEWAY_AUDIT_CLAUDE": "on",
            "GATEWAY_MCP_FILE": str(mcp),
            "GATEWAY_WEBFETCH_ALLOW": f"{self._pages.host}:{self._pages.port}",
            "GATEWAY_DEFAULT_ENGINE": "openai",
            "GATEWAY_CONVERSATIONS_MEMORY_BYTES": str(32 * MIB),  # a bound that is met long before the end
            "TMPDIR": str(self.temporary),
            "container": "tests",
        }

    def _end_peer(self, peer: Any) -> None:
        asyncio.run_coroutine_threadsafe(peer.__aexit__(None, None, None), self._loop).result()

    def _begin_harm(self, seed: str) -> None:
        asyncio.run(self._harm(seed, random.Random(seed)))

    def _begin_thread(self, run: Callable[..., None], *given: Any) -> None:
        self._clients.append(threading.Thread(target=run, args=given, daemon=True))
        self._clients[-1].start()

    def let_stand(self) -> None:
        """The second half begins: its honest turns are counted apart, and the first one is completed."""
        self._stands = self.standing
        wait_for(lambda: self.told_standing["COMPLETED"] > 0, "no honest turn is completed")

    def late(self) -> int:
        """How often a gateway told that its check was late, on a busy machine."""
        return sum(watch.late for watch in self._watches)

    def calm(self) -> None:
        """Has the peers pause; none is at work when this returns."""
        self._calm.set()
        wait_for(lambda: not self._at_work, "peers go on", 3 * PEER_SECONDS)

    def rage(self) -> None:
        """Has them go on."""
        self._calm.clear()

    def kill(self, what: str) -> None:
        """SIGKILL of one of the services, and another one in its place."""
        if what == "audit":
            self.kill_audit()
            self.start_audit()
        elif what == "standing" and self.standing:
            self.kill_gateway(self.standing)
            self.start_standing()
        elif self.second:
            self.kill_gateway(self.second)
            self.start_second()

    def settle(self) -> Findings:
        """Ends the clients and peers, and compares."""
        self._over.set()
        for client in self._clients:  # before their gateways are killed
            client.join()
        return super().settle()

    def _gateways_now(self) -> list[Service]:
        return [gateway for gateway in (self.standing, self.second) if gateway]

    def _stay_honest(self, number: int) -> None:
        while not self._over.is_set():
            gateways = self._gateways_now()
            gateway = gateways[number % len(gateways)]
            try:
                with grpc.insecure_channel(gateway.address) as channel:
                    stub = gateway_pb2_grpc.GatewayServiceStub(channel)
                    while not self._over.wait(HONEST_PAUSE_SECONDS):
                        for event in stub.RunTurn(pb.RunTurnRequest(input="go", engine="openai"), timeout=120):
                            self.note(event)
                        reason = pb.StopReason.Name(event.turn_finished.stop_reason)
                        self._told_by(gateway)[reason.removeprefix("STOP_REASON_")] += 1
            except grpc.RpcError as error:
                self._told_by(gateway)[error.code().name] += 1
                self._over.wait(HONEST_PAUSE_SECONDS)

    def _told_by(self, gateway: Service) -> Counter[str]:
        return self.told_standing if gateway is self._stands else self.told

    async def _harm(self, who: str, rng: random.Random) -> None:
        peers: dict[str, Peer] = {
            "frames": self._send_frames,
            "parts": self._send_parts,
            "unread": self._read_nothing,
            "calls at once": self._call_at_once,
            "usage": self._ask_for_groups,
            "model server": lambda rng: self._turn(engine="anthropic", model=rng.choice([*model_attacks.ATTACKS])),
            "claude": lambda rng: self._turn(
                engine="claude", input=f"attack: {rng.choice([*claude_attacks.ATTACKS])}.", follow=False
            ),
            "page": lambda rng: self._tool("webfetch", url=self._pages.url + rng.choice([*PAGES])),
            "MCP server": lambda rng: self._tool(
                *rng.choice(
                    [("program.go", name) for name in mcp_attacks.ATTACKS]
                    + [("json.go", name) for name in [*mcp_attacks.ATTACKS, *HTTP_ATTACKS]]
                    + [("events.go", name) for name in mcp_attacks.ATTACKS]
                )
            ),
            "tool": lambda rng: self._turn(engine="ollama", input=json.dumps(rng.choice(CASES).calls)),
        }
        waiting: list[str] = []
        while not self._over.is_set():
            self._at_work.discard(who)
            if self._calm.is_set():
                await asyncio.sleep(CALM_SECONDS)
                continue
            waiting = waiting or rng.sample([*peers], len(peers))
            name = waiting.pop()
            self._at_work.add(who)
            try:
                async with asyncio.timeout(self._peer_seconds):
                    await peers[name](rng)
                self.attacks[name] += 1
            except (OSError, grpc.RpcError, TimeoutError) as error:
                code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
                self.attacks[f"{name}: {code}"] += 1
            except Exception as error:  # noqa: BLE001 - told at the end
                self.unexpected[f"{name}: {type(error).__name__} {error}"] += 1

    def _a_service(self, rng: random.Random) -> tuple[str, Service]:
        return rng.choice([("audit_svc", self.audit), *(("gateway_svc", one) for one in self._gateways_now())])

    async def _send_frames(self, rng: random.Random) -> None:
        await asyncio.to_thread(attack, self._a_service(rng)[1], FRAMES[rng.choice([*FRAMES])])

    async def _send_parts(self, rng: random.Random) -> None:
        module, service = self._a_service(rng)
        method = rng.choice(methods(module))
        descriptor = request_type(method)
        assert descriptor is not None
        _, payload = rng.choice([*attacks(descriptor, LIMITS[module] - 64)])
        with grpc.insecure_channel(service.address) as channel:
            await asyncio.to_thread(send, channel, method, payload)

    async def _read_nothing(self, rng: random.Random) -> None:
        module, service = self._a_service(rng)
        path, by_stream = rng.choice(streams(module))
        request = b""
        if path.endswith("/RunTurn"):
            request = pb.RunTurnRequest(input="go", engine="anthropic", model="text").SerializeToString()
        async with unread(service.address, path, request, 20, ends=not by_stream):
            await asyncio.sleep(2)

    async def _call_at_once(self, rng: random.Random) -> None:
        module, service = self._a_service(rng)
        await at_once(service.address, list_calls if module == "audit_svc" else list_sessions)

    async def _ask_for_groups(self, rng: random.Random) -> None:
        async with grpc.aio.insecure_channel(self.audit.address) as channel:
            stub: Any = questions_pb2_grpc.QuestionServiceStub(channel)
            await stub.SummarizeUsage(questions_pb2.SummarizeUsageRequest(group_by=rng.choice(QUESTIONS)), timeout=120)

    async def _tool(self, tool: str, do: str = "", **arguments: str) -> None:
        calls = [{"name": tool, "arguments": {"do": do} if do else arguments}]
        await self._turn(engine="ollama", input=json.dumps(calls))

    async def _turn(self, *, follow: bool = True, **request: Any) -> None:
        gateway = random.choice(self._gateways_now())
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
            async for event in stub.RunTurn(pb.RunTurnRequest(**{"input": "go", **request}), timeout=120):
                if follow:
                    self.note(event)
