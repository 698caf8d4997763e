"""A round's world with a whole gateway in it: a model server, turns over gRPC, tools that really run."""

import asyncio
import json
import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import IO

import apsw
import grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from demo.model_server import ModelServer
from demo.processes import Service, start_service
from demo.script import Call, Script, Step
from recording.spool.gap import GAP_TOOL_NAME
from tests.faults.health_watch import HealthWatch
from tests.faults.ledger import Findings
from tests.faults.proxy import Proxy
from tests.faults.standing_log import LogPipe
from tests.faults.turn_clients import LABEL, TurnClients
from tests.faults.world import World, wait_for
from tests.support.ports import own_port
from tests.support.processes import children_of, has_ended

TURNS_AT_ONCE = 4
LISTENING = "service.listening"
_SESSIONS_BY_REQUEST = f"""
    SELECT value, count(*) FROM session_labels JOIN sessions ON sessions.id = session_id
    WHERE key = '{LABEL}' AND turns > 0 GROUP BY value
"""
_STEP = Step(tool_calls=(Call(name="bash", arguments={"command": "echo ran >> ran.log"}),), repeat=40)


class GatewayWorld(World):
    """Its turns' tools write a line each into a file, so that what ran can be told from what is recorded."""

    gateway_module = "gateway_svc"

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._workspace = self.folder / "workspace"
        self._started: set[str] = set()
        self._finished: dict[str, common_pb2.Outcome.ValueType] = {}
        self._clients: list[threading.Thread] = []
        self._gateways: dict[Service, HealthWatch] = {}
        self._watches: list[HealthWatch] = []
        self._front: Proxy | None = None
        self._followers: TurnClients | None = None
        self._loop = asyncio.new_event_loop()
        self._model = ModelServer(Script(steps=(_STEP, Step(text="Done."))))

    def start(self, *, log: LogPipe | IO[bytes] | None = None, **settings: str) -> None:
        """Starts the audit service, the proxy and the model server."""
        self._workspace.mkdir()
        super().start(log=log, **settings)
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        self._stack.callback(self._loop.close)
        self._stack.callback(thread.join)
        self._stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
        asyncio.run_coroutine_threadsafe(self._model.__aenter__(), self._loop).result()
        self._stack.callback(
            lambda: asyncio.run_coroutine_threadsafe(self._model.__aexit__(None, None, None), self._loop).result()
        )

    def start_gateway(self, log: LogPipe | None = None, **settings: str) -> Service:
        """A gateway on the state directory of the round. Its health must say that it serves, until it is ended."""
        address = f"127.0.0.1:{self._stack.enter_context(own_port())}"
        start = log.start if log else start_service
        gateway = start(
            self.gateway_module,
            {
                "GATEWAY_LISTEN": address,
                "GATEWAY_AUDIT_TARGET": self.proxy.address,
                "GATEWAY_STATE_DIR": str(self.state_dir),
                "GATEWAY_WORKSPACE": str(self._workspace),
                "GATEWAY_OLLAMA_URL": self._model.ollama_url,
                "GATEWAY_OLLAMA_MODEL": "scripted",
                "GATEWAY_BASH_SANDBOX": "off_as_root",
                "GATEWAY_DRAIN_SECONDS": "60",
                **settings,
            },
            "serve",
        )
        watch = self._gateways[self._stack.enter_context(gateway)] = HealthWatch(address)
        self._stack.callback(watch.close)
        self._watches.append(watch)
        watch.must_tell(serves=True)
        return gateway

    def health_of(self, gateway: Service) -> HealthWatch:
        """Who watches a gateway that runs."""
        return self._gateways[gateway]

    def run_turns(self, gateway: Service) -> None:
        """Clients that run turns until the gateway is gone. The first call has ended when this returns."""
        before = len(self._finished)
        for _ in range(TURNS_AT_ONCE):
            self._clients.append(threading.Thread(target=self._run_turns, args=(gateway.address,), daemon=True))
            self._clients[-1].start()
        wait_for(lambda: len(self._finished) > before, "no turn ran a tool")

    def follow_turns(self) -> None:
        """Begins a gateway behind a proxy of its own, and clients that follow their turns to the end through it."""
        self._front = self._stack.enter_context(Proxy(self.start_gateway().address))
        self._followers = TurnClients(self._front.address, self.rng.randrange(2**32))

    def cut_clients(self) -> None:
        """Resets the connections of the clients that follow their turns."""
        assert self._front is not None
        self._front.cut()

    def replace_gateway(self) -> None:
        """SIGKILL of the gateway that those clients talk to, and another one in its place."""
        assert self._front is not None
        assert self._followers is not None
        self._followers.killed = True
        self.kill_gateway(next(iter(self._gateways)))
        self._front.lead_to(self.start_gateway().address)

    def kill_gateway(self, gateway: Service) -> None:
        """SIGKILL, in whatever its turns are doing; nothing answers in its place."""
        watch = self._gateways.pop(gateway)
        watch.unknown()
        gateway.kill()
        watch.must_be_silent()
        self.kills += 1

    def kill_workers(self, gateway: Service, number: int) -> None:
        """SIGKILL of some of a gateway's workers; others are started in their places."""
        watch = self._gateways[gateway]
        watch.unknown()
        begun = gateway.stderr_text().count(LISTENING)
        for pid in self.rng.sample(children_of(gateway.pid), number):
            os.kill(pid, signal.SIGKILL)
        self.wait_for_workers(gateway, begun + number)
        watch.must_tell(serves=True, lasting=False)
        self.kills += number

    def wait_for_workers(self, gateway: Service, number: int) -> None:
        """Until so many workers have come to listen, since the gateway's start."""
        wait_for(lambda: gateway.stderr_text().count(LISTENING) >= number, "a worker is not started", seconds=240)

    def kill_supervisor(self, gateway: Service) -> None:
        """SIGKILL of a gateway's supervisor, whose workers must end by themselves."""
        watch = self._gateways.pop(gateway)
        watch.unknown()
        workers = children_of(gateway.pid)
        gateway.kill()
        wait_for(lambda: all(map(has_ended, workers)), "workers outlive their supervisor")
        watch.must_be_silent()
        self.kills += 1

    def terminate_gateway(self, gateway: Service) -> None:
        """SIGTERM, at which it must end as asked.

        Raises:
            RuntimeError: it ended by force, or with an error.
        """
        watch = self._gateways.pop(gateway)
        watch.unknown()
        if code := gateway.terminate(90):
            raise RuntimeError(f"the gateway ended with exit code {code}")
        watch.must_be_silent()

    def wait_for_calls(self, more: int) -> None:
        """Until so many more calls have ended."""
        wanted = len(self._finished) + more
        wait_for(lambda: len(self._finished) >= wanted, "turns stand still")

    def settle(self) -> Findings:
        """Starts a gateway that sends what is left, ends both services, and compares."""
        self.proxy.behaviour = "pass"
        if self._followers:
            self._followers.end()
        for gateway in list(self._gateways):
            self.kill_gateway(gateway)
        for client in self._clients:
            client.join()
        if self._audit is None:
            self.start_audit()
        self.terminate_gateway(self.start_gateway())
        self.health.must_tell(serves=True)
        findings = Findings(accepted=len(self._finished))
        rested = self.rest_and_kill()
        self.judge_health(findings, *self._watches)
        self.judge_seal(findings, rested)
        self._examine(self.audit_folder / "audit.db", findings)
        return findings

    def _run_turns(self, address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            try:
                while True:
                    for event in stub.RunTurn(gateway_pb2.RunTurnRequest(input="go"), timeout=60):
                        self.note(event)
            except grpc.RpcError:
                pass

    def note(self, event: gateway_pb2.TurnEvent) -> None:
        """What a client was told of a call: its row must say the same."""
        if event.HasField("tool_call_started"):
            self._started.add(event.tool_call_started.tool_call_id)
        elif event.HasField("tool_call_finished"):
            self._finished[event.tool_call_finished.tool_call_id] = event.tool_call_finished.outcome

    def _examine(self, database: Path, findings: Findings) -> None:
        db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
        integrity = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
        rows = list(db.execute("SELECT id, outcome, provider_call_id, tool_name FROM tool_call_log NOT INDEXED"))
        asked = list(db.execute(_SESSIONS_BY_REQUEST))
        gaps = db.execute("SELECT args_summary FROM tool_call_log WHERE tool_name = ?", (GAP_TOOL_NAME,))
        told_missing = sum(json.loads(counts)["tool_calls"] for (counts,) in gaps)
        db.close()
        if integrity != ["ok"]:
            findings.report("corrupt", integrity)
        outcomes = {row[0]: row[1] for row in rows}
        if self._followers:
            findings.accepted = len(rows)
            findings.report("corrupt", self._followers.wrong)
            findings.report("doubled", (f"{name}: {count} sessions" for name, count in asked if count > 1))
        findings.report(
            "doubled",
            (call for call, count in Counter(row[2] for row in rows if row[3] == "bash").items() if count > 1),
        )
        others = {row[0] for row in rows if row[3] not in ("bash", GAP_TOOL_NAME)}
        name = common_pb2.Outcome.Name
        told = {call: name(outcome).removeprefix("OUTCOME_").lower() for call, outcome in self._finished.items()}
        missing = self._started - outcomes.keys()
        if len(missing) <= told_missing:
            outcomes |= {call: told.get(call, "") for call in missing}
        findings.report("lost", self._started - outcomes.keys())
        findings.report("lost", (f"{call}, {told[call]}" for call in told if outcomes.get(call) != told[call]))
        log = self._workspace / "ran.log"
        ran = len(log.read_text().splitlines()) if log.exists() else 0
        commands = {call: outcome for call, outcome in outcomes.items() if call not in others}
        succeeded = sum(outcome == "succeeded" for outcome in commands.values())
        findings.report("lost", (f"command {n + 1} that ran without a row" for n in range(ran - len(commands))))
        findings.report("corrupt", (f"row {n + 1} of a command that did not run" for n in range(succeeded - ran)))
