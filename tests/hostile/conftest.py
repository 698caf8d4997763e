"""Both services as processes, and what they take of memory."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, start_service
from tests.hostile.held import GROWTH, WATCHED, Watched
from tests.hostile.honest import ALL

SERVICES = ("audit_svc", "gateway_svc")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints what the honest callers beside the hostile peers felt, where `-rP` asks for what passed: bench-hostile."""
    if "P" not in config.option.reportchars or not ALL:
        return
    terminalreporter.write_line(f"{'honest calls, ms':<100} {'calls':>8} {'p50':>8} {'p99':>8} {'worst':>8}")
    for name, calls in ALL:
        figures = (calls.quantile(share) for share in (0.5, 0.99, 1))
        told = " ".join(f"{figure:>8.1f}" for figure in figures) if calls.times else "shorter than a call apart"
        terminalreporter.write_line(f"{name:<100} {len(calls.times):>8} {told}")


class Start:
    """Starts services as `start(module, **settings)`, and sees to it that they hold nothing more behind a case."""

    def __init__(self, folder: Path, stack: ExitStack, growth: int) -> None:
        self.folder = folder
        self._stack = stack
        self._growth = growth
        self.watched: list[Watched] = []

    def __call__(self, module: str, **env: str) -> Service:
        temporary = self.folder / f"temporary-{len(self.watched)}"
        temporary.mkdir()
        common = {
            "AUDIT_LISTEN": "127.0.0.1:0",
            "AUDIT_DB": str(self.folder / "audit.db"),
            "GATEWAY_LISTEN": "127.0.0.1:0",
            "GATEWAY_STATE_DIR": str(self.folder / "state"),
            "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9",
            "GATEWAY_OLLAMA_MODEL": "m",
            "TMPDIR": str(temporary),
        }
        service = self._stack.enter_context(start_service(module, {**common, **env}, "serve"))
        watched = WATCHED[service.pid] = Watched(service, temporary, self._growth)
        self.watched.append(watched)
        with suppress(grpc.RpcError):  # one with TLS
            others_are_served(service)
        watched.begin()
        return service


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """What a service has taken, it gives back: descriptors, threads, children, temporary files. A case whose services
    may take more memory than 256 MiB is marked `growth(bytes)`."""
    marker = request.node.get_closest_marker("growth")
    with ExitStack() as stack:
        start = Start(tmp_path, stack, marker.args[0] if marker else GROWTH)
        yield start
        wrong = []
        for watched in reversed(start.watched):
            wrong += watched.wrong()
            watched.service.kill()  # one that was started later is a client of those before it
        assert wrong == []


def connect(service: Service) -> socket.socket:
    host, _, port = service.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def others_are_served(service: Service, credentials: grpc.ChannelCredentials | None = None) -> bool:
    """Whether a new client gets an answer."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.secure_channel(service.address, credentials, options)
        if credentials
        else grpc.insecure_channel(service.address, options)
    )
    with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return bool(stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status)
