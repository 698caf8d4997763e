"""What holds for all tests."""

import gc
import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from recording import log, upkeep
from service_kit.event_loop import ServiceLoop
from tests.support.examples import examples

pytest_plugins = ["tests.thread_guard"]

log.pass_on_to(structlog.get_logger)  # as in a service

_TESTS = Path(__file__).parent

# What a shell has for its own services, terminal, models and repository is not for the tests and what they start. No
# client is even made where the proxy is one of SOCKS.
_OTHERS = (
    *("AUDIT_", "GATEWAY_", "INTAKE_", "ONRECORD_", "OTEL_", "ANTHROPIC_", "OPENAI_", "OLLAMA_", "GIT_"),
    *("XDG_DATA_HOME", "COLUMNS", "LINES", "NO_COLOR", "ALL_PROXY", "all_proxy"),
)
for _name in [name for name in os.environ if name.startswith(_OTHERS)]:
    if _name not in ("AUDIT_SEAL_SECONDS", "GATEWAY_CLAUDE_COMMAND"):
        del os.environ[_name]
# Nor is a proxy asked for what is on this machine.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "localhost,127.0.0.1,::1,[::1]")))

# Nor is a ledger on the usual port: acts of control, which are never pruned, reached one that ran there.
for _name in ("GATEWAY_AUDIT_TARGET", "INTAKE_AUDIT_TARGET"):
    os.environ[_name] = "127.0.0.1:1"

# The ledgers of most tests are not about the seal, which is a process more for each.
os.environ.setdefault("AUDIT_SEAL_SECONDS", "0")

# No test measures time: the machine may be busy with other tests.
settings.register_profile(
    "busy-machine", deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy-machine")


def pytest_asyncio_loop_factories() -> dict[str, type[ServiceLoop]]:
    """Tests run on the loop of the services."""
    return {"service": ServiceLoop}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module whose mark leaves out all its tests is not even imported."""
    if collection_path.suffix != ".py" or not collection_path.is_file():
        return None
    marks = re.search(r"^pytestmark = \[?pytest\.mark\.(\w+)", collection_path.read_text("utf-8"), re.MULTILINE)
    return True if marks and f"not {marks[1]}" in config.option.markexpr.split(" and ") else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Each worker of xdist begins with another folder: a module that one has compiled, the others load."""
    report = yield
    if collector.path == _TESTS and (worker := int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])):
        sizes = [sum(1 for _ in child.path.rglob("*.py")) for child in report.result]
        share = worker / int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        first = next((at for at in range(len(sizes)) if sum(sizes[: at + 1]) > sum(sizes) * share), 0)
        report.result = [*report.result[first:], *report.result[:first]]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All workers have the tests in one order."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.parts[len(_TESTS.parts) :][:1])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Modules and tests are never garbage: the collector neither looks at them while they come nor in the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> None:
    """A job that a shell runs in the background ignores SIGINT, and so would every process that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def no_upkeep_failed() -> Iterator[None]:
    """The test begins and ends as a process does, in which no task of upkeep has failed."""
    kept: tuple[dict[str, Any], ...] = (upkeep.failures, upkeep._failing, upkeep._logged_at)
    for tasks in kept:
        tasks.clear()
    yield
    for tasks in kept:
        tasks.clear()
