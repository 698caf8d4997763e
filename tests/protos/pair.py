"""A real pair of a ledger and a gateway, whose model server is not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.processes import Service, start_service


@contextmanager
def started_pair(folder: Path, **audit: str) -> Iterator[tuple[Service, Service]]:
    """The ledger and the gateway. audit: settings of the ledger."""
    (folder / "workspace").mkdir()
    audit = {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(folder / "audit.db"), **audit}
    with start_service("audit_svc", audit, "serve") as ledger:
        gateway = {
            "GATEWAY_LISTEN": "127.0.0.1:0",
            "GATEWAY_STATE_DIR": str(folder / "gateway"),
            "GATEWAY_WORKSPACE": str(folder / "workspace"),
            "GATEWAY_BASH_SANDBOX": "off_as_root",
            "GATEWAY_AUDIT_TARGET": ledger.address,
            "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9",
            "GATEWAY_OLLAMA_MODEL": "scripted",
        }
        with start_service("gateway_svc", gateway, "serve") as running:
            yield ledger, running
