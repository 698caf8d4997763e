"""What holds for all tests."""

import signal

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.thread_guard"]

# No test measures time: the machine may be busy with other tests.
settings.register_profile("busy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy-machine")


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> None:
    """A job that a shell runs in the background ignores SIGINT, and so would every process that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
