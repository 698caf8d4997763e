"""Each service looks for cycles seldom, and not among what it has loaded."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.processes import start_service

TELLS_AT_ITS_END = """
import atexit, gc, json, runpy, sys

def tell():
    told = {"threshold": gc.get_threshold(), "frozen": gc.get_freeze_count(), "all": len(gc.get_objects())}
    sys.stderr.write(json.dumps({"collector": told}) + "\\n")

atexit.register(tell)
del sys.argv[:3]  # this, the interpreter and its -m
runpy.run_module(sys.argv[0], run_name="__main__")
"""
SERVICES: dict[str, Callable[[Path], dict[str, str]]] = {
    "gateway_svc": lambda folder: {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_STATE_DIR": str(folder / "state"),
        "GATEWAY_WORKSPACE": str(folder / "workspace"),
        "GATEWAY_OLLAMA_URL": "http://127.0.0.1:1",
        "GATEWAY_OLLAMA_MODEL": "none",
    },
    "audit_svc": lambda folder: {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(folder / "audit.db")},
    "intake_svc": lambda folder: {
        "INTAKE_LISTEN": "127.0.0.1:0",
        "INTAKE_HTTP_LISTEN": "127.0.0.1:0",
        "INTAKE_STATE_DIR": str(folder / "state"),
    },
}


@pytest.mark.parametrize("module", SERVICES)
def test_a_service_looks_for_cycles_seldom_and_not_among_what_it_has_loaded(tmp_path: Path, module: str) -> None:
    env = SERVICES[module](tmp_path)
    (tmp_path / "workspace").mkdir()
    with start_service(module, env, "serve", prefix=(sys.executable, "-c", TELLS_AT_ITS_END)) as service:
        assert service.terminate() == 0
        line = next(line for line in service.stderr_text().splitlines() if line.startswith('{"collector"'))
    told = json.loads(line)["collector"]
    assert told["threshold"] == [50_000, 20, 20]
    assert told["frozen"] > told["all"]
