"""What holds for all tests."""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from recording import log, upkeep

pytest_plugins = ["tests.thread_guard"]

log.pass_on_to(structlog.get_logger)  # as in a service

# The ledgers of most tests are not about the seal, which is a process more for each.
os.environ.setdefault("AUDIT_SEAL_SECONDS", "0")

# No test measures time: the machine may be busy with other tests.
settings.register_profile("busy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy-machine")


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
