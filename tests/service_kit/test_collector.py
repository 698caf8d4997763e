"""Services look for cycles seldom, and where that takes long, more seldom."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from demo.processes import start_service
from service_kit import collector
from service_kit.collector import Looks

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


@pytest.mark.long
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


EVERY = 10
"""Seconds between two looks."""


@pytest.mark.parametrize(
    ("used", "all_at"),
    [([0.1] * 130, range(30, 1301, 30)), ([9.0] * 130, range(60, 1301, 60)), ([9.0] * 20 + [0.1], [60, 120, 180, 210])],
    ids=["resting", "busy", "resting after work"],
)
def test_everything_is_looked_at_where_a_service_rests_and_seldom_where_not(
    monkeypatch: pytest.MonkeyPatch, used: list[float], all_at: list[int]
) -> None:
    """What has stayed is much, and nobody is answered while it is looked at. used: CPU seconds, by looks."""
    now, cpu = 0.0, 0.0
    monkeypatch.setattr(collector, "time", SimpleNamespace(monotonic=lambda: now, process_time=lambda: cpu))
    looked: list[int] = []
    monkeypatch.setattr(collector, "gc", SimpleNamespace(collect=looked.append))
    looks = Looks()
    for seconds in used:
        now, cpu = now + EVERY, cpu + seconds
        looks.look()
    assert [EVERY * number for number, generation in enumerate(looked, 1) if generation == 2] == list(all_at)
