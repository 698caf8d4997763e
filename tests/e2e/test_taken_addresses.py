"""A service that cannot listen leaves nothing on the disk: it was never there."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forked import run_command

SERVICES = {
    "audit_svc": ("AUDIT", {"AUDIT_DB": "state/audit.db"}),
    "gateway_svc": (
        "GATEWAY",
        {"GATEWAY_STATE_DIR": "state", "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m"},
    ),
    "intake_svc": ("INTAKE", {"INTAKE_STATE_DIR": "state"}),
}


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("module", "address"),
    [
        *((module, address) for module in SERVICES for address in ("LISTEN", "METRICS_LISTEN")),
        ("intake_svc", "HTTP_LISTEN"),
    ],
)
def test_a_service_whose_address_is_taken_leaves_nothing(tmp_path: Path, taken: str, module: str, address: str):
    prefix, state = SERVICES[module]
    listen = {f"{prefix}_LISTEN": "127.0.0.1:0", "INTAKE_HTTP_LISTEN": "127.0.0.1:0", f"{prefix}_{address}": taken}
    placed = {name: value.replace("state", str(tmp_path / "state")) for name, value in state.items()}
    ended = run_command(module, {**listen, **placed}, "serve")
    assert ended.returncode == 1, ended.stderr
    assert "cannot_listen" in ended.stderr
    assert taken in ended.stderr
    assert list(tmp_path.iterdir()) == []
