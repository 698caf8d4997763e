"""A world whose producer is intake_svc, and exporters that send again what was not answered, as the SDKs do."""

import random
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from demo.processes import Service, start_service
from intake_svc.dialects import read_spans
from tests.faults.ledger import Findings, examine
from tests.faults.world import World, wait_for
from tests.intake_svc.exports import calls, post, send
from tests.support.ports import own_port

EXPORTERS, CALLS = 6, 5


class DoorWorld(World):
    """Its journal has the ids of the rows that each export becomes: intended when sent, accepted when answered."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.state_dir = self.folder / "door"
        self._grpc = f"127.0.0.1:{self._stack.enter_context(own_port())}"
        self._http = f"127.0.0.1:{self._stack.enter_context(own_port())}"
        self._door: Service | None = None
        self._writing, self._over = threading.Lock(), threading.Event()
        self._refused = 0
        pool = self._stack.enter_context(ThreadPoolExecutor(EXPORTERS))
        self._stack.callback(self._over.set)  # before the pool waits for its threads
        self._pool = pool
        self._exporters: list[Future[None]] = []

    def start_door(self) -> None:
        """Starts the door, always at the same addresses."""
        env = {
            "INTAKE_LISTEN": self._grpc,
            "INTAKE_HTTP_LISTEN": self._http,
            "INTAKE_STATE_DIR": str(self.state_dir),
            "INTAKE_AUDIT_TARGET": self.proxy.address,
            "INTAKE_DRAIN_SECONDS": "60",
        }
        self._door = self._stack.enter_context(start_service("intake_svc", env, "serve"))

    def kill_door(self) -> None:
        """SIGKILL to the door."""
        assert self._door is not None
        self._door.kill()
        self._door = None
        self.kills += 1

    def start_exporters(self) -> None:
        """Exporters over gRPC and HTTP, each with one export on its way, until the round settles."""
        self._exporters = [self._pool.submit(self._export, number) for number in range(EXPORTERS)]

    def wait_for_more_rows(self) -> None:
        """Until more was answered than now."""
        before = len(self.journal().accepted)
        wait_for(lambda: len(self.journal().accepted) > before, "no export was answered any more")

    def wait_for_refusals(self) -> None:
        """Until more exports were refused than now."""
        before = self._refused
        wait_for(lambda: self._refused > before + EXPORTERS, "no export was refused")

    def settle(self) -> Findings:
        """Starts again what is dead, has the rest answered and delivered, kills the audit service, and looks."""
        self.proxy.behaviour = "pass"
        if self._audit is None:
            self.start_audit()
        if self._door is None:
            self.start_door()
        self.wait_for_more_rows()
        self._over.set()
        for exporter in self._exporters:
            exporter.result()
        assert self._door is not None
        code = self._door.terminate(120)
        rested = self.rest_and_kill()
        findings = examine(self.audit_folder / "audit.db", self.journal())
        self.judge_seal(findings, rested)
        self.judge_health(findings)
        if code != 0:
            findings.report("lost", [f"the door ended with exit code {code}"])
        if any((self.state_dir / "spool" / "dead-letters").glob("*")):
            findings.report("lost", ["rows in a dead-letter file"])
        return findings

    def _export(self, number: int) -> None:
        while not self._over.is_set():
            batch = calls(CALLS, session=f"exporter-{number}")
            rows = [row.id for row in read_spans(batch.resource_spans[0]).calls]
            self._note("i", rows)
            while not self._is_answered(batch, over_http=number % 2 == 1):
                self._refused += 1
                if self._over.wait(0.02):
                    return
            self._note("a", rows)

    def _is_answered(self, batch: ExportTraceServiceRequest, *, over_http: bool) -> bool:
        with suppress(grpc.RpcError, OSError):
            if over_http:
                return post(self._http, "/v1/traces", batch.SerializeToString())[0] == 200
            send(self._grpc, batch)
            return True
        return False

    def _note(self, kind: str, rows: Iterable[str]) -> None:
        with self._writing, self._journal.open("a") as journal:
            journal.writelines(f"{kind} {row}\n" for row in rows)
