"""Both services as processes, and what they take of memory."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, start_service
from tests.hostile.honest import ALL

SERVICES = ("audit_svc", "gateway_svc")
Start = Callable[..., Service]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints what the honest callers beside the hostile peers felt, where `-rP` asks for what passed: bench-hostile."""
    if "P" not in config.option.reportchars or not ALL:
        return
    terminalreporter.write_line(f"{'honest calls, ms':<100} {'p50':>8} {'p99':>8} {'worst':>8}")
    for name, calls in ALL:
        figures = (calls.quantile(share) for share in (0.5, 0.99, 1))
        terminalreporter.write_line(f"{name:<100} {' '.join(f'{figure:>8.1f}' for figure in figures)}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(module: str, **env: str) -> Service:
            common = {
                "AUDIT_LISTEN": "127.0.0.1:0",
                "AUDIT_DB": str(tmp_path / "audit.db"),
                "GATEWAY_LISTEN": "127.0.0.1:0",
                "GATEWAY_STATE_DIR": str(tmp_path / "state"),
                "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9",
                "GATEWAY_OLLAMA_MODEL": "m",
            }
            return stack.enter_context(start_service(module, {**common, **env}, "serve"))

        yield start


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


def memory(service: Service, field: str = "VmRSS") -> int:
    """What the process holds in bytes; VmHWM is the most that it has held since it began, or since forget_peak()."""
    text = Path(f"/proc/{service.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak(service: Service) -> int:
    """Lets VmHWM begin anew, and returns what is held now."""
    Path(f"/proc/{service.pid}/clear_refs").write_text("5")
    return memory(service)
