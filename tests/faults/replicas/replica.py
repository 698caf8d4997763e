"""One of the audit services on a PostgreSQL, each of whose connections to the others can be cut."""

import secrets
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, start_service
from recording.channel.options import DIRECT
from tests.faults.proxy import Proxy
from tests.support.ports import own_port

ANSWER_SECONDS = 5.0


class Replica:
    """Its database knows it by its name, as the application that is connected."""

    def __init__(self, name: str, url: str, key_file: Path, stack: ExitStack) -> None:
        """url: of the database, host and port in it those of the server. key_file: of the seal."""
        self.name = name
        self.address = f"127.0.0.1:{stack.enter_context(own_port())}"
        head, _, place = url.rpartition("@")
        server, _, database = place.partition("/")
        self.to_database = stack.enter_context(Proxy(server))
        self.from_others = stack.enter_context(Proxy(self.address))
        self.metrics_address = f"127.0.0.1:{stack.enter_context(own_port())}"
        self.password = secrets.token_hex(16)
        """Nobody asks for it."""
        where = f"{self.to_database.address}/{database}"
        self._url = f"{head}:{self.password}@{where}?application_name={name}"
        self._key_file = key_file
        self._service: Service | None = None
        self._stack = stack
        self._channel = grpc.insecure_channel(self.address, [*DIRECT, ("grpc.max_reconnect_backoff_ms", 100)])
        stack.callback(self._channel.close)
        stack.callback(self.wake)

    def start(self) -> None:
        """Starts it, always at the same address."""
        env = {
            "AUDIT_DB": self._url,
            "AUDIT_LISTEN": self.address,
            "AUDIT_REPLICA_ADDRESS": self.from_others.address,
            "AUDIT_METRICS_LISTEN": self.metrics_address,
            "AUDIT_HEALTH_SECONDS": "1",
            "AUDIT_DRAIN_SECONDS": "2",
            "AUDIT_SEAL_SECONDS": "0.2",
            "AUDIT_SEAL_KEY_FILE": str(self._key_file),
        }
        self._service = self._stack.enter_context(start_service("audit_svc", env, "serve"))

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._service is not None

    def kill(self) -> None:
        """SIGKILL."""
        if self._service is not None:
            self._service.kill()
            self._service = None

    def stop(self) -> None:
        """SIGTERM, at which it ends as asked. Raises RuntimeError where it does not."""
        if self._service is not None and (code := self._service.terminate(60)):
            raise RuntimeError(f"{self.name} ended with exit code {code}:\n{self.log}")
        self._service = None

    def pause(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Sends it, and waits for nothing."""
        if self._service is not None:
            self._service.process.send_signal(number)

    @property
    def log(self) -> str:
        """What this life of it has logged."""
        return self._service.stderr_text() if self._service else ""

    def serves(self, name: str = "") -> bool:
        """Whether it says that it serves; writer: that it is the one that writes."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=ANSWER_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
